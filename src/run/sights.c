#include "run/sights.h"

#include "base/error.h"
#include "base/log.h"
#include "memory/store.h"
#include "vlm/vlm.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUEUE_MAX = 2, NAME_SIZE = LB_SHA256_HEX + 32 };

typedef struct job {
    char content[LB_SHA256_HEX];
    int fd;
} job;

struct lb_sights {
    lb_store *store;
    lb_sources *sources;
    char settings[LB_SHA256_HEX]; /* all that an entry follows from but video and weights */
    char vision[sizeof((lb_child_state *)0)->vision];
    job queue[QUEUE_MAX];
    int n_queue;
    bool closing, failed;
    char (*pending)[LB_SHA256_HEX]; /* [n_pending] contents of entries under a name for the time being; the thread's */
    size_t n_pending;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    bool started;
};

/* Whoever adds an option that changes what the models see adds it here. */
static lb_status hash_settings(lb_sights *s, const lb_run_params *p, const lb_child_state *engine, lb_error *error) {
    const lb_engine_params *e = &p->child.engine;
    const lb_frames_params *f = &p->clip.frames;
    lb_fingerprint labels = {.sha256 = "(built in)"};
    lb_status status = e->detector_path && e->labels_path ? lb_fingerprint_content(e->labels_path, NULL, &labels, error)
                                                          : LB_STATUS_OK;
    size_t n_kind = strlen(engine->device); /* "CUDA0" and "CUDA1" see the same */
    while (n_kind && engine->device[n_kind - 1] >= '0' && engine->device[n_kind - 1] <= '9')
        n_kind--;
    char *text;
    if (status != LB_STATUS_OK)
        return status;
    const int n = asprintf(&text,
                           "sight 1, lowbeam %s, %s\ndevice %.*s (%s) exact %d, %s\nframes %d bounded %d from %.17g to "
                           "%.17g fps %.17g\ntiles %d of %d, pictures %d %d\n",
                           LOWBEAM_VERSION, lb_vlm_library(), (int)n_kind, engine->device, engine->device_description,
                           (int)e->vlm.exact, engine->vision, f->n_frames, (int)f->bounded, f->bounded ? f->from_s : 0,
                           f->bounded ? f->to_s : 0, f->image_fps, p->clip.max_tiles, engine->image_size,
                           engine->shortest_edge, engine->longest_edge);
    if (n < 0)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    lb_sha256 hash;
    lb_sha256_init(&hash);
    lb_sha256_add_text(&hash, text);
    free(text);
    if (e->detector_path) {
        char detector[256];
        snprintf(detector, sizeof detector, "boxes %.9g %.9g most %d labels %s", (double)e->box_threshold,
                 (double)e->text_threshold, e->max_detections, labels.sha256);
        lb_sha256_add_text(&hash, detector);
    }
    lb_sha256_hex(&hash, s->settings);
    return LB_STATUS_OK;
}

/* weights: "" while they are not known; the name is one for the time being then. */
static void make_name(const lb_sights *s, const char *content, const char *weights, char name[NAME_SIZE]) {
    char hex[LB_SHA256_HEX];
    lb_sha256 hash;
    lb_sha256_init(&hash);
    lb_sha256_add_text(&hash, s->settings);
    lb_sha256_add_text(&hash, content);
    lb_sha256_add_text(&hash, weights);
    lb_sha256_hex(&hash, hex);
    if (weights[0])
        snprintf(name, NAME_SIZE, "%s", hex);
    else
        snprintf(name, NAME_SIZE, "%s.pending-%ld", hex, (long)getpid());
}

static void remember_pending(lb_sights *s, const char *content) {
    if ((s->n_pending & (s->n_pending + 1)) == 0) { /* 0, 1, 3, 7 ...: full */
        void *more = realloc(s->pending, (2 * s->n_pending + 1) * sizeof *s->pending);
        if (!more)
            return; /* it is not found again, and ages */
        s->pending = more;
    }
    memcpy(s->pending[s->n_pending++], content, LB_SHA256_HEX);
}

static void write_one(lb_sights *s, const job *j) {
    struct stat st;
    lb_error error = {0};
    char name[NAME_SIZE], weights[LB_SHA256_HEX] = "";
    lb_status status = LB_STATUS_OK;
    void *data = MAP_FAILED;
    if (!s->failed && fstat(j->fd, &st) == 0 && st.st_size > 0)
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, j->fd, 0);
    if (data != MAP_FAILED) {
        const bool known = lb_sources_identity(s->sources, weights);
        make_name(s, j->content, weights, name);
        status = lb_store_put(s->store, name, data, (size_t)st.st_size, &error);
        if (status == LB_STATUS_OK && !known)
            remember_pending(s, j->content);
        munmap(data, (size_t)st.st_size);
    }
    close(j->fd);
    if (status != LB_STATUS_OK) {
        lb_log(LB_LOG_WARN, "cache", "%s%s", error.message,
               status == LB_STATUS_DOES_NOT_FIT ? "" : "; nothing more is kept there in this run");
        s->failed = status != LB_STATUS_DOES_NOT_FIT;
    }
}

static void *work(void *user) {
    lb_sights *s = user;
    pthread_mutex_lock(&s->mutex);
    while (!s->closing || s->n_queue > 0) {
        if (s->n_queue == 0) {
            pthread_cond_wait(&s->changed, &s->mutex);
            continue;
        }
        const job j = s->queue[0];
        pthread_mutex_unlock(&s->mutex);
        write_one(s, &j);
        pthread_mutex_lock(&s->mutex);
        s->n_queue--;
        memmove(s->queue, s->queue + 1, (size_t)s->n_queue * sizeof *s->queue);
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

lb_status lb_sights_open(const lb_run_params *params, const lb_child_state *engine, lb_sources *sources,
                         lb_sights **out, lb_error *error) {
    *out = NULL;
    char folder[PATH_MAX];
    lb_sights *s = calloc(1, sizeof *s);
    if (!s)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    s->sources = sources;
    snprintf(s->vision, sizeof s->vision, "%s", engine->vision);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
    const int n = snprintf(folder, sizeof folder, "%s/sights", params->child.engine.cache_dir);
    lb_status status = n > 0 && (size_t)n < sizeof folder
                           ? lb_store_open(folder, params->cache_dir_limit, &s->store, error)
                           : lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the path is too long");
    if (status == LB_STATUS_OK)
        status = hash_settings(s, params, engine, error);
    if (status == LB_STATUS_OK) {
        sigset_t all, before; /* signals belong to the main thread */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        s->started = pthread_create(&s->thread, NULL, work, s) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!s->started)
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no thread can be started");
    }
    if (status != LB_STATUS_OK) {
        lb_error_context(error, "--cache-dir");
        lb_sights_close(s);
        return status;
    }
    *out = s;
    return LB_STATUS_OK;
}

int lb_sights_find(lb_sights *s, const char *content) {
    char name[NAME_SIZE], weights[LB_SHA256_HEX];
    if (!lb_sources_identity(s->sources, weights))
        return -1; /* the run does not wait for a hash */
    make_name(s, content, weights, name);
    return lb_store_get(s->store, name);
}

void lb_sights_keep(lb_sights *s, const char *content, const char *vision, int fd) {
    if (strcmp(vision, s->vision) != 0) {
        close(fd);
        return;
    }
    pthread_mutex_lock(&s->mutex);
    while (s->n_queue == QUEUE_MAX)
        pthread_cond_wait(&s->changed, &s->mutex);
    job *j = &s->queue[s->n_queue++];
    snprintf(j->content, sizeof j->content, "%s", content);
    j->fd = fd;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

void lb_sights_close(lb_sights *s) {
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->mutex);
        s->closing = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->mutex);
        pthread_join(s->thread, NULL);
    }
    char weights[LB_SHA256_HEX];
    const bool known = s->n_pending > 0 && lb_sources_identity(s->sources, weights);
    for (size_t i = 0; i < s->n_pending; i++) {
        char from[NAME_SIZE], to[NAME_SIZE];
        make_name(s, s->pending[i], "", from);
        if (known)
            make_name(s, s->pending[i], weights, to);
        lb_store_rename(s->store, from, known ? to : NULL);
    }
    free(s->pending);
    lb_store_close(s->store);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->changed);
    free(s);
}
