#include "run/prefetch.h"

#include "base/cond.h"
#include "base/error.h"
#include "run/paths.h"
#include "run/sights.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 16 };

typedef struct slot {
    lb_clip *clip;
    lb_error error;
    bool begun, ready;
} slot;

struct lb_prefetch {
    lb_prefetch_params params;
    const char *const *video_paths;
    size_t n;
    slot *slots; /* ring of n_slots: clip i lies in slot i % n_slots */
    size_t n_slots;
    size_t taken;    /* clips taken so far */
    lb_clip *spent;  /* given back, to be freed */
    size_t held;     /* bytes of all clips there are and those that are being made */
    bool next_waits; /* the clip that is taken next waits for room: no other may take it */
    atomic_bool cancel;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread[THREADS_MAX];
    int n_threads;
};

/* A clip on its way. */
typedef struct job {
    lb_prefetch *p;
    size_t i;
    lb_clip_params clip;
    size_t held;
} job;

/* Frees one with the mutex open; its bytes are free when it is. */
static void free_clip(lb_prefetch *p, lb_clip *clip) {
    const size_t bytes = clip->held_bytes;
    pthread_mutex_unlock(&p->mutex);
    lb_clip_free(clip);
    pthread_mutex_lock(&p->mutex);
    p->held -= bytes;
    pthread_cond_broadcast(&p->changed);
}

static bool free_spent(lb_prefetch *p) {
    lb_clip *clip = p->spent;
    if (!clip)
        return false;
    p->spent = clip->next;
    free_clip(p, clip);
    return true;
}

/* The clip that is ready and would be wanted last goes, to be made again. */
static bool evict_last(lb_prefetch *p, size_t first) {
    const size_t end = p->taken + p->n_slots < p->n ? p->taken + p->n_slots : p->n;
    for (size_t k = end; k > first; k--) {
        slot *s = &p->slots[(k - 1) % p->n_slots];
        if (!s->ready || !s->clip || s->clip->held_bytes == 0)
            continue;
        lb_clip *clip = s->clip;
        *s = (slot){0};
        free_clip(p, clip);
        return true;
    }
    return false;
}

/* lb_frames_params.admit: waits until there is room. A thread that waits here frees what was given back meanwhile. */
static lb_status admit(int width, int height, void *user, lb_error *error) {
    job *j = user;
    lb_prefetch *p = j->p;
    size_t bytes;
    lb_status status = lb_clip_bytes(width, height, &j->clip, &bytes, error);
    if (status != LB_STATUS_OK)
        return status;
    pthread_mutex_lock(&p->mutex);
    while (!p->cancel && bytes <= p->params.max_bytes &&
           (p->held > p->params.max_bytes - bytes || (p->next_waits && j->i != p->taken))) {
        const bool is_next = j->i == p->taken;
        p->next_waits |= is_next;
        if (!free_spent(p) && !(is_next && evict_last(p, j->i + 1)))
            pthread_cond_wait(&p->changed, &p->mutex);
    }
    if (j->i == p->taken)
        p->next_waits = false;
    if (p->cancel)
        status = lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
    else if (bytes > p->params.max_bytes)
        status = lb_error_set(
            error, LB_STATUS_DOES_NOT_FIT,
            "%d frames of %dx%d with their tiles are %.1f MiB, and --cache (or what --ram leaves of it) "
            "is %.1f MiB; raise that, or take fewer frames (--num-frames) or tiles (--max-tiles)",
            j->clip.frames.n_frames, width, height, (double)bytes / (1 << 20), (double)p->params.max_bytes / (1 << 20));
    else
        p->held += j->held = bytes;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    return status;
}

/* The content's hash is taken here, where it hides behind the answering of other videos: before reading where a cache
 * may make that needless, else after it, when the file's pages are in memory. */
static void prepare(job *j, slot *result) {
    lb_prefetch *p = j->p;
    char *path = NULL;
    lb_fingerprint content = {0};
    lb_status status =
        lb_video_path(p->params.base, p->video_paths[j->i], p->params.allow_outside, &path, &result->error);
    if (status == LB_STATUS_OK && p->params.sights) {
        /* what cannot be hashed is read all the same: the decoder's message is the better one */
        const int fd = lb_fingerprint_content(path, &p->cancel, &content, NULL) == LB_STATUS_OK
                           ? lb_sights_find(p->params.sights, content.sha256)
                           : -1;
        result->clip = fd >= 0 ? lb_clip_seen(fd, j->clip.frames.n_frames) : NULL;
    }
    if (status == LB_STATUS_OK && !result->clip)
        status = lb_clip_prepare(path, &j->clip, &result->clip, &result->error);
    if (status == LB_STATUS_OK && !content.sha256[0])
        status = lb_fingerprint_content(path, &p->cancel, &content, &result->error);
    if (status != LB_STATUS_OK) {
        lb_clip_free(result->clip);
        result->clip = NULL;
    } else {
        result->clip->content = content;
        result->clip->held_bytes = j->held;
    }
    free(path);
}

/* The first clip of those that may be made now that nobody makes; n: there is none. A slot is free again when the clip
 * that lay in it was taken. */
static size_t next_clip(const lb_prefetch *p) {
    for (size_t i = p->taken; i < p->n && i < p->taken + p->n_slots; i++)
        if (!p->slots[i % p->n_slots].begun)
            return i;
    return p->n;
}

static void *work(void *user) {
    lb_prefetch *p = user;
    pthread_mutex_lock(&p->mutex);
    while (!p->cancel) {
        if (free_spent(p))
            continue;
        job j = {.p = p, .i = next_clip(p), .clip = p->params.clip};
        if (j.i == p->n) {
            pthread_cond_wait(&p->changed, &p->mutex);
            continue;
        }
        slot *s = &p->slots[j.i % p->n_slots];
        s->begun = true;
        if (p->params.max_bytes > 0) {
            j.clip.frames.admit = admit;
            j.clip.frames.user = &j;
        }
        pthread_mutex_unlock(&p->mutex);
        slot result = {.begun = true, .ready = true};
        prepare(&j, &result);
        pthread_mutex_lock(&p->mutex);
        if (!result.clip)
            p->held -= j.held;
        *s = result;
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
    lb_cond_init(&p->changed);
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
    return lb_prefetch_take_unless(p, i, NULL, clip, error);
}

lb_status lb_prefetch_take_unless(lb_prefetch *p, size_t i, const atomic_bool *unless, lb_clip **clip,
                                  lb_error *error) {
    pthread_mutex_lock(&p->mutex);
    slot *from = &p->slots[i % p->n_slots];
    while (!from->ready) {
        if ((p->params.cancel && *p->params.cancel) || (unless && *unless)) {
            pthread_mutex_unlock(&p->mutex);
            *clip = NULL;
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "%s: interrupted", p->video_paths[i]);
        }
        lb_cond_wait_a_while(&p->changed, &p->mutex);
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

void lb_prefetch_set_limit(lb_prefetch *p, size_t max_bytes) {
    pthread_mutex_lock(&p->mutex);
    p->params.max_bytes = max_bytes;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
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
