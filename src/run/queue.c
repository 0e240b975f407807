#include "run/run_internal.h"

#include "base/cond.h"
#include "base/error.h"
#include "memory/host.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DECODERS = 2, /* clips decoded at once for each lane: while one hangs the other goes on */
    AHEAD = 3,    /* clips ready for each lane beyond the one that it answers */
    DECODERS_MAX = 16
};

lb_status lb_queue_open(lb_run *r, lb_error *error) {
    lb_queue *q = &r->queue;
    const lb_dataset *dataset = r->dataset;
    q->group = calloc(dataset->n_groups + 1, sizeof *q->group);
    q->path = calloc(dataset->n_groups + 1, sizeof *q->path);
    q->base = strdup(r->params->questions_path);
    if (!q->group || !q->path || !q->base)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    for (size_t i = 0; i < dataset->n_groups; i++)
        if (lb_resume_is_wanted(&r->resume, &dataset->group[i])) {
            q->path[q->n] = dataset->group[i].video_path;
            q->group[q->n++] = (lb_group){.place = i, .video = &dataset->group[i]};
        }
    return LB_STATUS_OK;
}

/* For clips: --cache, as far as --ram leaves it beside what the engines have in host memory. */
static size_t clip_limit(lb_run *r) {
    const lb_engine_params *e = &r->params->child.engine;
    const size_t most = e->cache_bytes > 0 ? e->cache_bytes : lb_host_default_cache();
    if (e->ram_bytes == 0)
        return most;
    size_t rest = 0;
    pthread_mutex_lock(&r->mutex);
    for (int i = 0; i < r->n_lanes; i++)
        rest += r->lane[i].host_bytes;
    pthread_mutex_unlock(&r->mutex);
    const size_t left = e->ram_bytes > rest ? e->ram_bytes - rest : 1; /* 0 would be no limit */
    return left < most ? left : most;
}

/* Each decoder is a process that works on one core for the most part: no more of them than that for further lanes. */
static int decoders(const lb_run *r) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int n = DECODERS * r->n_lanes;
    n = n > cores ? (int)cores : n;
    n = n > DECODERS_MAX ? DECODERS_MAX : n;
    return n > DECODERS ? n : DECODERS;
}

lb_status lb_queue_start(lb_run *r, lb_error *error) {
    const lb_run_params *p = r->params;
    lb_queue *q = &r->queue;
    if (q->n == 0)
        return LB_STATUS_OK;
    lb_prefetch_params params = {.clip = p->clip,
                                 .base = p->videos ? p->videos : dirname(q->base),
                                 .allow_outside = p->allow_outside,
                                 .cancel = p->cancel,
                                 .n_threads = p->n_decoders > 0 ? p->n_decoders : decoders(r),
                                 .n_ahead = p->n_ahead > 0 ? p->n_ahead : AHEAD * r->n_lanes,
                                 .max_bytes = clip_limit(r)};
    const lb_child_state *engine = lb_child_get_state(r->lane[0].child);
    params.clip.tile_size = engine->image_size;
    params.clip.shortest_edge = engine->shortest_edge;
    params.clip.longest_edge = engine->longest_edge;
    /* half of the time for reading; the models make do with what is left */
    params.clip.frames.enough_s = p->deadline_s / 2;
    params.sights = p->dump ? NULL : r->sights; /* a dump needs the frames */
    return lb_prefetch_start(q->path, q->n, &params, &q->prefetch, error);
}

void lb_queue_close(lb_run *r) {
    lb_queue *q = &r->queue;
    for (size_t i = 0; q->group && i < q->n; i++) {
        lb_prefetch_give_back(q->prefetch, q->group[i].clip); /* of one that was returned when the run ended */
        lb_group_free(&q->group[i]);
    }
    lb_prefetch_stop(q->prefetch);
    free(q->group);
    free(q->path);
    free(q->base);
    *q = (lb_queue){0};
}

/* In what follows the mutex is held. */

/* Not one that its own engine died of, unless no lane is left that has not tried. */
static lb_group *take_returned(lb_lane *lane) {
    const unsigned others = lb_lane_others_locked(lane);
    for (lb_group **at = &lane->run->queue.returned; *at; at = &(*at)->next) {
        lb_group *group = *at;
        if ((group->tried >> lane->number & 1) && (others & ~group->tried))
            continue;
        *at = group->next;
        group->next = NULL;
        return group;
    }
    return NULL;
}

/* The next clip, or why there is none; NULL: it was called away. The mutex is open meanwhile. */
static lb_group *take_next(lb_lane *lane, lb_error *error) {
    lb_run *r = lane->run;
    lb_queue *q = &r->queue;
    lb_group *group = &q->group[q->next];
    q->taking = true;
    pthread_mutex_unlock(&r->mutex);
    if (r->params->child.engine.ram_bytes > 0)
        lb_prefetch_set_limit(q->prefetch, clip_limit(r)); /* another child may have another plan */
    const lb_status status = lb_prefetch_take_unless(q->prefetch, q->next, &lane->called, &group->clip, error);
    pthread_mutex_lock(&r->mutex);
    q->taking = false;
    pthread_cond_broadcast(&r->changed);
    if (!group->clip && status == LB_STATUS_INTERRUPTED && lane->called)
        return NULL;
    q->next++;
    return group;
}

static bool is_over(const lb_queue *q) {
    return q->next == q->n && !q->taking && !q->returned && q->n_in_work == 0;
}

bool lb_queue_next(lb_lane *lane, lb_group **out, lb_error *error) {
    lb_run *r = lane->run;
    lb_queue *q = &r->queue;
    lb_group *group = NULL;
    pthread_mutex_lock(&r->mutex);
    for (;;) {
        lane->called = false;
        lb_lane_come_back_locked(lane);
        if (!lb_run_goes_on(r) || (lane->given_up && lane->number > 0) || is_over(q))
            break;
        /* the first one, given up, waits whether the others are through with all */
        const bool waits = lane->given_up && lb_lane_others_locked(lane) != 0;
        if (!waits && (group = take_returned(lane)))
            break;
        if (!waits && !q->taking && q->next < q->n) {
            if (lane->given_up) { /* without an engine no video is read any more */
                lb_error_set(error, LB_STATUS_CHILD_DIED, "not asked, because the engine keeps dying: %s",
                             lane->last_death.message);
                group = &q->group[q->next++];
            } else {
                group = take_next(lane, error);
            }
            if (group)
                break;
            continue;
        }
        lb_cond_wait_a_while(&r->changed, &r->mutex);
    }
    q->n_in_work += group != NULL;
    if (group)
        lane->video = group->video->video_path;
    pthread_mutex_unlock(&r->mutex);
    *out = group;
    return group != NULL;
}

void lb_queue_done(lb_lane *lane, lb_group *group) {
    lb_run *r = lane->run;
    lb_prefetch_give_back(r->queue.prefetch, group->clip);
    group->clip = NULL;
    pthread_mutex_lock(&r->mutex);
    r->result->n_empty += (size_t)group->n_empty;
    r->queue.n_in_work--;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    lb_group_free(group);
}

void lb_queue_return(lb_lane *lane, lb_group *group) {
    lb_run *r = lane->run;
    lb_group **at = &r->queue.returned;
    pthread_mutex_lock(&r->mutex);
    while (*at)
        at = &(*at)->next;
    *at = group;
    r->queue.n_in_work--;
    for (int i = 0; i < r->n_lanes; i++)
        if (&r->lane[i] != lane)
            r->lane[i].called = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}
