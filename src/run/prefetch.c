#include "run/prefetch.h"

#include "base/error.h"
#include "run/paths.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS_MAX = 16 };

typedef struct slot {
    lb_clip *clip;
    lb_error error;
    bool ready;
} slot;

struct lb_prefetch {
    lb_prefetch_params params;
    const char *const *video_paths;
    size_t n;
    slot *slots; /* ring of n_slots: clip i lies in slot i % n_slots */
    size_t n_slots;
    size_t next;    /* first clip that no thread has begun */
    size_t taken;   /* clips taken so far */
    lb_clip *spent; /* given back, to be freed */
    atomic_bool cancel;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread[THREADS_MAX];
    int n_threads;
};

/* Here, where it hides behind the answering of other videos; after reading, when the file's pages are in memory. */
static lb_status fingerprint(lb_prefetch *p, const char *path, slot *result) {
    lb_status status = lb_fingerprint_content(path, &p->cancel, &result->clip->content, &result->error);
    if (status != LB_STATUS_OK) {
        lb_clip_free(result->clip);
        result->clip = NULL;
    }
    return status;
}

static void prepare(lb_prefetch *p, size_t i, slot *result) {
    char *path = NULL;
    lb_status status = lb_video_path(p->params.base, p->video_paths[i], p->params.allow_outside, &path, &result->error);
    if (status == LB_STATUS_OK)
        status = lb_clip_prepare(path, &p->params.clip, &result->clip, &result->error);
    if (status == LB_STATUS_OK)
        status = fingerprint(p, path, result);
    free(path);
}

static void *work(void *user) {
    lb_prefetch *p = user;
    pthread_mutex_lock(&p->mutex);
    while (!p->cancel) {
        if (p->spent) {
            lb_clip *clip = p->spent;
            p->spent = clip->next;
            pthread_mutex_unlock(&p->mutex);
            lb_clip_free(clip);
            pthread_mutex_lock(&p->mutex);
            continue;
        }
        /* a slot is free again when the clip that lay in it was taken */
        if (p->next == p->n || p->next >= p->taken + p->n_slots) {
            pthread_cond_wait(&p->changed, &p->mutex);
            continue;
        }
        size_t i = p->next++;
        pthread_mutex_unlock(&p->mutex);
        slot result = {0};
        prepare(p, i, &result);
        result.ready = true;
        pthread_mutex_lock(&p->mutex);
        p->slots[i % p->n_slots] = result;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

lb_status lb_prefetch_start(const char *const *video_paths, size_t n, const lb_prefetch_params *params,
                            lb_prefetch **out, lb_error *error) {
    *out = NULL;
    lb_prefetch *p = calloc(1, sizeof *p);
    if (!p)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    p->params = *params;
    p->params.clip.frames.cancel = &p->cancel;
    p->video_paths = video_paths;
    p->n = n;
    p->n_slots = (size_t)(params->n_ahead > 0 ? params->n_ahead : 3);
    p->slots = calloc(p->n_slots, sizeof *p->slots);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_condattr_t clock; /* one that nobody sets back during a wait */
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &clock);
    pthread_condattr_destroy(&clock);
    int n_threads = params->n_threads > 0 ? params->n_threads : 2;
    if (!p->slots) {
        lb_prefetch_stop(p);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    }
    /* signals belong to the main thread: a Ctrl-C must wake it, not a decoder's wait */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < n_threads && i < THREADS_MAX; i++)
        if (pthread_create(&p->thread[p->n_threads], NULL, work, p) == 0)
            p->n_threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (p->n_threads == 0) {
        lb_prefetch_stop(p);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no thread can be started");
    }
    *out = p;
    return LB_STATUS_OK;
}

lb_status lb_prefetch_take(lb_prefetch *p, size_t i, lb_clip **clip, lb_error *error) {
    pthread_mutex_lock(&p->mutex);
    slot *from = &p->slots[i % p->n_slots];
    while (!from->ready) {
        if (p->params.cancel && *p->params.cancel) {
            pthread_mutex_unlock(&p->mutex);
            *clip = NULL;
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "%s: interrupted", p->video_paths[i]);
        }
        struct timespec soon; /* a signal handler cannot wake a condition: look now and then */
        clock_gettime(CLOCK_MONOTONIC, &soon);
        soon.tv_nsec += 100 * 1000 * 1000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&p->changed, &p->mutex, &soon);
    }
    *clip = from->clip;
    lb_error failure = from->error;
    *from = (slot){0};
    p->taken = i + 1;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    if (!*clip && error)
        *error = failure;
    return *clip ? LB_STATUS_OK : failure.status;
}

void lb_prefetch_give_back(lb_prefetch *p, lb_clip *clip) {
    if (!clip)
        return;
    pthread_mutex_lock(&p->mutex);
    clip->next = p->spent;
    p->spent = clip;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
}

void lb_prefetch_stop(lb_prefetch *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->cancel = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->n_threads; i++)
        pthread_join(p->thread[i], NULL);
    for (size_t i = 0; p->slots && i < p->n_slots; i++)
        lb_clip_free(p->slots[i].clip);
    while (p->spent) {
        lb_clip *clip = p->spent;
        p->spent = clip->next;
        lb_clip_free(clip);
    }
    free(p->slots);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->changed);
    free(p);
}
