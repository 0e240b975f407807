#include "run/sources.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MAX = 256 };
static const int64_t SMALL_BYTES = 64 << 20; /* read at once: a quarter of a second at most */
static const char KIND[] = "weights";

typedef struct source_file {
    char role[64];
    char *path;
    lb_fingerprint f;
    atomic_bool hashed; /* f is whole, and stays as it is */
} source_file;

struct lb_sources {
    source_file file[FILES_MAX];
    size_t n;
    lb_journal_source list[FILES_MAX];
    int64_t small_bytes; /* read at once so far */
    pthread_t thread;
    bool started;
    atomic_bool cancel, ready;
};

lb_sources *lb_sources_new(void) {
    return calloc(1, sizeof(lb_sources));
}

/* Reads it, or remembers that it did. */
static lb_status hash_file(source_file *file, const atomic_bool *cancel, lb_error *error) {
    if (file->f.sha256[0] || lb_fingerprint_recall(file->path, &file->f)) {
        file->hashed = true;
        return LB_STATUS_OK;
    }
    const double start = lb_now_s();
    lb_fingerprint found;
    lb_status status = lb_fingerprint_content(file->path, cancel, &found, error);
    if (status != LB_STATUS_OK)
        return status;
    if (!lb_fingerprint_untouched(&found, &file->f))
        return lb_error_set(error, LB_STATUS_IO, "%s: was changed during the run", file->path);
    file->f = found;
    file->hashed = true;
    if (file->f.n_bytes > SMALL_BYTES)
        lb_fingerprint_remember(file->path, &file->f);
    lb_log(LB_LOG_INFO, "run", "file=%s sha256=%s bytes=%lld time_s=%.3f", file->path, file->f.sha256,
           (long long)file->f.n_bytes, lb_now_s() - start);
    return LB_STATUS_OK;
}

static lb_status add_one(lb_sources *w, const char *role, int part, const char *path, lb_error *error) {
    lb_fingerprint f;
    if (w->n == FILES_MAX)
        return LB_STATUS_OK;
    lb_status status = lb_fingerprint_look(path, &f, error);
    if (status == LB_STATUS_NOT_FOUND || status == LB_STATUS_REFUSED) /* whoever loads it tells that better */
        return LB_STATUS_OK;
    if (status != LB_STATUS_OK)
        return status;
    source_file *file = &w->file[w->n];
    file->path = strdup(path);
    file->f = f;
    if (!file->path)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    snprintf(file->role, sizeof file->role, part > 1 ? "%s, part %d" : "%s", role, part);
    w->n++;
    if (f.n_bytes + w->small_bytes > SMALL_BYTES) {
        if (lb_fingerprint_recall(path, &file->f))
            file->hashed = true;
        return LB_STATUS_OK;
    }
    w->small_bytes += f.n_bytes;
    hash_file(file, NULL, NULL); /* what cannot be read is told by who loads it */
    return LB_STATUS_OK;
}

lb_status lb_sources_add(lb_sources *w, const char *role, const char *path, lb_error *error) {
    static const char first[] = "-00001-of-";
    int n_parts = 1;
    const char *mark = path ? strstr(path, first) : NULL;
    for (const char *next = mark; next; next = strstr(mark + 1, first))
        mark = next;
    if (mark)
        n_parts = atoi(mark + strlen(first));
    lb_status status = path ? add_one(w, role, 1, path, error) : LB_STATUS_OK;
    for (int part = 2; mark && part <= n_parts && part <= FILES_MAX && status == LB_STATUS_OK; part++) {
        char *name;
        if (asprintf(&name, "%.*s-%05d-of-%s", (int)(mark - path), path, part, mark + strlen(first)) < 0)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
        status = add_one(w, role, part, name, error);
        free(name);
    }
    return status;
}

const lb_journal_source *lb_sources_list(lb_sources *w, size_t *n) {
    for (size_t i = 0; i < w->n; i++)
        w->list[i] = (lb_journal_source){KIND, w->file[i].role, w->file[i].f};
    *n = w->n;
    return w->list;
}

static lb_status refuse(lb_error *error, const char *path, const source_file *file, const char *why) {
    return lb_error_set(error, LB_STATUS_REFUSED,
                        "%s: not resumed, since its answers would be of two kinds: the weights (%s) in %s %s; give the "
                        "file that the run began with, or name another --out",
                        path, file->role, file->path, why);
}

/* now: what is known of the file; its hash may be missing, and so may before's. */
static lb_status compare_hashes(const source_file *file, const lb_fingerprint *before, const char *path,
                                lb_error *error) {
    if (before->sha256[0] && file->f.sha256[0] && strcmp(before->sha256, file->f.sha256) != 0)
        return refuse(error, path, file, "have another content");
    return LB_STATUS_OK;
}

lb_status lb_sources_compare(lb_sources *w, lb_journal *journal, const char *path, const atomic_bool *cancel,
                             lb_error *error) {
    for (size_t i = 0; i < w->n; i++) {
        source_file *file = &w->file[i];
        lb_fingerprint before;
        bool found;
        lb_status status = lb_journal_get_fingerprint(journal, KIND, file->role, &before, &found, error);
        if (status != LB_STATUS_OK)
            return status;
        if (!found)
            return refuse(error, path, file, "were not there then");
        if (before.n_bytes != file->f.n_bytes)
            return refuse(error, path, file, "have another size");
        if (!lb_fingerprint_untouched(&before, &file->f)) {
            if (!before.sha256[0] && before.mtime_ns != file->f.mtime_ns)
                return refuse(error, path, file,
                              "have another time, and the run was stopped before it had read them to the end");
            if ((status = hash_file(file, cancel, error)) != LB_STATUS_OK)
                return status;
        }
        if ((status = compare_hashes(file, &before, path, error)) != LB_STATUS_OK)
            return status;
    }
    return LB_STATUS_OK;
}

static bool is_language(const source_file *file) {
    return strncmp(file->role, "model", 5) == 0;
}

bool lb_sources_identity(const lb_sources *w, char *hex) {
    lb_sha256 hash;
    lb_sha256_init(&hash);
    for (size_t i = 0; i < w->n; i++) {
        if (is_language(&w->file[i]))
            continue;
        if (!w->file[i].hashed)
            return false;
        lb_sha256_add_text(&hash, w->file[i].role);
        lb_sha256_add_text(&hash, w->file[i].f.sha256);
    }
    lb_sha256_hex(&hash, hex);
    return true;
}

static void *work(void *user) {
    lb_sources *w = user;
    for (size_t k = 0; k < 2 * w->n; k++) {
        source_file *file = &w->file[k % w->n];
        if (is_language(file) == (k < w->n))
            continue;
        lb_error error = {0};
        lb_status status = hash_file(file, &w->cancel, &error);
        if (status != LB_STATUS_OK && status != LB_STATUS_INTERRUPTED)
            lb_log(LB_LOG_WARN, "run", "not fingerprinted: %s", error.message);
    }
    w->ready = true;
    return NULL;
}

void lb_sources_hash(lb_sources *w) {
    /* signals belong to the main thread */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->started = pthread_create(&w->thread, NULL, work, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!w->started)
        w->ready = true; /* size and time alone, then */
}

bool lb_sources_ready(const lb_sources *w) {
    return w->ready;
}

lb_status lb_sources_finish(lb_sources *w, const atomic_bool *cancel, lb_journal *journal, const char *path,
                            lb_error *error) {
    while (w->started && !w->ready) {
        if (cancel && *cancel)
            return LB_STATUS_OK;
        usleep(10000);
    }
    if (w->started)
        pthread_join(w->thread, NULL);
    w->started = w->ready = false;
    for (size_t i = 0; i < w->n; i++) {
        lb_fingerprint before;
        bool found;
        lb_status status = lb_journal_get_fingerprint(journal, KIND, w->file[i].role, &before, &found, error);
        if (status == LB_STATUS_OK && found)
            status = compare_hashes(&w->file[i], &before, path, error);
        /* with the times of now: next time it need not be read again */
        if (status == LB_STATUS_OK && w->file[i].f.sha256[0] &&
            (!before.sha256[0] || !lb_fingerprint_untouched(&before, &w->file[i].f)))
            status = lb_journal_put_fingerprint(journal, KIND, w->file[i].role, &w->file[i].f, error);
        if (status != LB_STATUS_OK)
            return status;
    }
    return LB_STATUS_OK;
}

void lb_sources_free(lb_sources *w) {
    if (!w)
        return;
    w->cancel = true;
    if (w->started)
        pthread_join(w->thread, NULL);
    for (size_t i = 0; i < w->n; i++)
        free(w->file[i].path);
    free(w);
}
