#include "run/lanes.h"
#include "run/run_internal.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

enum {
    STARTS_MAX = 3,     /* children in a row that could not load the models: none will */
    RETRIES_MAX = 6,    /* smaller plans, one after the other, when the device runs out of memory; see planner.c */
    VIDEOS_LOST_MAX = 3 /* videos in a row that no answer came from any more: it is not the video */
};

/* The run's own listener, one call at a time; the others' after the first is done with it. */
static void planned(const lb_child_state *state, void *user) {
    const lb_lane *lane = user;
    lb_run *r = lane->run;
    if (lane->number > 0 && (!state->fits || !lb_lanes_wait_for_begin(r))) /* left out: said in one line */
        return;
    pthread_mutex_lock(&r->mutex);
    if (r->params->child.planned)
        r->params->child.planned(state, r->params->child.user);
    pthread_mutex_unlock(&r->mutex);
    if (lane->number == 0)
        lb_lanes_start_early(r, state);
}

/* Of another engine's first children. Which lane answers a video is chance: its answers must not depend on that. */
static lb_status check(const lb_child_state *state, void *user, lb_error *error) {
    const lb_lane *lane = user;
    const lb_run *r = lane->run;
    if (lane->number == 0 || lane->state != LB_LANE_STARTING || !state->fits || strcmp(state->numbers, r->numbers) == 0)
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_DOES_NOT_FIT,
                        "its memory plan would give other answers (%s) than the first engine's (%s); with the same "
                        "--vram for all devices their plans are the same",
                        state->numbers, r->numbers);
}

void lb_lane_init(lb_run *r, int number) {
    lb_lane *lane = &r->lane[number];
    lane->run = r;
    lane->number = number;
    lane->child_params = r->params->child;
    lane->child_params.order = &lane->order;
    lane->child_params.engine.work = r->work ? lb_work_get(r->work) : NULL;
    lane->child_params.check = check;
    lane->child_params.planned = planned;
    lane->child_params.user = lane;
    lane->state = LB_LANE_STARTING;
    lane->as_first = true;
}

void lb_lane_name(const lb_lane *lane, char *text, size_t n) {
    text[0] = 0;
    if (lane->run->n_lanes > 1)
        snprintf(text, n, "engine %d (%.*s): ", lane->number + 1, 64, lane->order.names);
}

/* A warning that says which lane it is about, where there are several. */
static void warn(const lb_lane *lane, const lb_error *cause, const char *then) {
    char name[128], message[sizeof cause->message + 256];
    lb_lane_name(lane, name, sizeof name);
    snprintf(message, sizeof message, "%s%s; %s", name, cause->message, then);
    lb_run_warn(lane->run, message);
}

bool lb_run_is_memory_death(const lb_error *cause) {
    return cause->status == LB_STATUS_OUT_OF_MEMORY || strstr(cause->message, "out of memory") ||
           strstr(cause->message, "no room on") || strstr(cause->message, "failed to allocate") ||
           strstr(cause->message, "unable to allocate"); /* libllama's weights */
}

bool lb_lane_can_retry(const lb_lane *lane) {
    return lane->run->work && lane->child_params.engine.n_retries < RETRIES_MAX;
}

lb_status lb_lane_open(lb_lane *lane, const atomic_bool *stop, lb_error *error) {
    lb_run *r = lane->run;
    lb_status status = lb_child_start(&lane->child_params, stop, &lane->child, error);
    if (status != LB_STATUS_OK)
        return status;
    const lb_child_state *state = lb_child_get_state(lane->child);
    if (lane->n_parallel == 0)
        lane->n_parallel = state->n_parallel > 0 ? state->n_parallel : 1;
    pthread_mutex_lock(&r->mutex);
    lane->state = LB_LANE_LIVES;
    lane->host_bytes = state->host_bytes;
    r->result->n_children++;
    pthread_mutex_unlock(&r->mutex);
    return LB_STATUS_OK;
}

lb_status lb_lane_start(lb_lane *lane, const atomic_bool *stop, lb_error *error) {
    for (int n_starts = 1;;) {
        lb_status status = lb_lane_open(lane, stop, error);
        if (status == LB_STATUS_OK || status == LB_STATUS_INTERRUPTED || status == LB_STATUS_DOES_NOT_FIT)
            return status;
        if (lb_run_is_memory_death(error) && lb_lane_can_retry(lane))
            lane->child_params.engine.n_retries++;
        else if (n_starts++ == STARTS_MAX)
            return status;
    }
}

unsigned lb_lane_others_locked(const lb_lane *lane) {
    unsigned bits = 0;
    for (int i = 0; i < lane->run->n_lanes; i++) {
        const lb_lane_state state = lane->run->lane[i].state;
        if (i != lane->number && (state == LB_LANE_STARTING || state == LB_LANE_LIVES))
            bits |= 1u << i;
    }
    return bits;
}

unsigned lb_lane_others(lb_lane *lane) {
    pthread_mutex_lock(&lane->run->mutex);
    const unsigned bits = lb_lane_others_locked(lane);
    pthread_mutex_unlock(&lane->run->mutex);
    return bits;
}

bool lb_lane_leaves(lb_lane *lane) {
    return lane->given_up && lb_lane_others(lane) != 0;
}

void lb_lane_give_up(lb_lane *lane, const lb_error *cause) {
    lb_run *r = lane->run;
    lane->given_up = true;
    if (cause != &lane->last_death)
        lane->last_death = *cause;
    pthread_mutex_lock(&r->mutex);
    lane->state = LB_LANE_OUT;
    lane->host_bytes = 0;
    const int n = __builtin_popcount(lb_lane_others_locked(lane));
    for (int i = 0; i < r->n_lanes; i++)
        r->lane[i].called = true; /* what it gave back may be for the one that is left */
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    char then[96] = "it is left out, and no engine is left";
    if (n > 0)
        snprintf(then, sizeof then, "it is left out, and the run goes on with %d engine%s", n, n == 1 ? "" : "s");
    if (r->n_lanes > 1)
        warn(lane, cause, then);
}

void lb_lane_come_back_locked(lb_lane *lane) {
    lb_run *r = lane->run;
    if (!lane->gave_way || lb_lane_others_locked(lane) != 0)
        return;
    lane->gave_way = lane->given_up = false;
    lane->state = LB_LANE_LIVES;
    char name[128], message[256];
    lb_lane_name(lane, name, sizeof name);
    snprintf(message, sizeof message, "%sno other engine is left; it is tried again", name);
    if (r->observer.warning)
        r->observer.warning(message, r->observer.user);
}

static lb_status revive(lb_lane *lane, lb_error *error) {
    lb_run *r = lane->run;
    for (int n_starts = 0; !lane->child && !lane->given_up; n_starts++) {
        if (!lb_run_goes_on(r))
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        if (n_starts == STARTS_MAX || lane->videos_lost == VIDEOS_LOST_MAX) {
            lb_lane_give_up(lane, &lane->last_death);
            break;
        }
        lb_status status = lb_lane_open(lane, r->params->cancel, error);
        if (status == LB_STATUS_OK)
            continue;
        if (status == LB_STATUS_INTERRUPTED || status == LB_STATUS_DOES_NOT_FIT)
            return status;
        if (r->work && lb_run_is_memory_death(error)) /* what has no room now may have some for the next video */
            return error->status = LB_STATUS_OUT_OF_MEMORY;
        lane->last_death = *error;
    }
    if (lane->child)
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "not asked, because the engine keeps dying: %s",
                        lane->last_death.message);
}

lb_status lb_lane_fit(lb_lane *lane, bool *smallest, lb_error *error) {
    for (;;) {
        int *n_retries = &lane->child_params.engine.n_retries;
        lb_status status = revive(lane, error);
        if (status == LB_STATUS_OUT_OF_MEMORY && !*smallest && lb_lane_can_retry(lane)) {
            ++*n_retries;
        } else if (status == LB_STATUS_DOES_NOT_FIT && *n_retries > 0) {
            --*n_retries;
            *smallest = true;
        } else {
            /* somebody has taken its memory; others have theirs, and need not wait for it */
            if ((status == LB_STATUS_OUT_OF_MEMORY || status == LB_STATUS_DOES_NOT_FIT) && lb_lane_others(lane) != 0) {
                lane->gave_way = true;
                lb_lane_give_up(lane, error);
            }
            return status;
        }
    }
}

void lb_lane_bury(lb_lane *lane, const lb_error *cause) {
    warn(lane, cause, "starting another one");
    lb_child_stop(lane->child);
    lane->child = NULL;
    lane->last_death = *cause;
}
