#include "journal/fingerprint.h"

#include "base/error.h"
#include "video/video.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20 };

static lb_status fault(lb_error *error, const char *path, int code) {
    return lb_error_set(error, code == ENOENT || code == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s: %s", path,
                        strerror(code));
}

static int64_t ns_of(const struct timespec *t) {
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static int64_t later_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static void add_look(lb_fingerprint *f, const struct stat *st, bool bytes) {
    if (bytes)
        f->n_bytes += st->st_size;
    f->mtime_ns = later_of(f->mtime_ns, ns_of(&st->st_mtim));
    f->ctime_ns = later_of(f->ctime_ns, ns_of(&st->st_ctim));
}

/* One file into the sums. hash NULL: its look alone. O_NONBLOCK: a FIFO would be waited for. */
static lb_status add_file(const char *path, const atomic_bool *cancel, lb_fingerprint *f, lb_sha256 *hash,
                          lb_error *error) {
    lb_status status = LB_STATUS_OK;
    struct stat st;
    uint8_t *piece = NULL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fault(error, path, errno);
    if (fstat(fd, &st)) {
        status = fault(error, path, errno);
        goto cleanup;
    }
    if (!S_ISREG(st.st_mode)) {
        status = lb_error_set(error, LB_STATUS_REFUSED, "%s: is no regular file", path);
        goto cleanup;
    }
    add_look(f, &st, true);
    if (!hash)
        goto cleanup;
    if (!(piece = malloc(PIECE_BYTES))) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
        goto cleanup;
    }
    for (;;) {
        if (cancel && *cancel) {
            status = lb_error_set(error, LB_STATUS_INTERRUPTED, "%s: interrupted", path);
            goto cleanup;
        }
        ssize_t n = read(fd, piece, PIECE_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = fault(error, path, errno);
        if (n <= 0)
            break;
        lb_sha256_add(hash, piece, (size_t)n);
    }
cleanup:
    free(piece);
    close(fd);
    return status;
}

static int is_picture(const struct dirent *entry) {
    return entry->d_name[0] != '.' && lb_pictures_is_name(entry->d_name);
}

static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static lb_status add_folder(const char *path, const atomic_bool *cancel, lb_fingerprint *f, lb_sha256 *hash,
                            lb_error *error) {
    struct dirent **entries;
    int n = scandir(path, &entries, is_picture, by_bytes);
    if (n < 0)
        return fault(error, path, errno);
    lb_status status = LB_STATUS_OK;
    for (int i = 0; i < n; i++) {
        char *name = NULL;
        lb_fingerprint one = {0};
        lb_sha256 inner;
        lb_sha256_init(&inner);
        if (status == LB_STATUS_OK && asprintf(&name, "%s/%s", path, entries[i]->d_name) < 0) {
            name = NULL;
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
        }
        if (status == LB_STATUS_OK)
            status = add_file(name, cancel, &one, hash ? &inner : NULL, error);
        if (status == LB_STATUS_OK) {
            f->n_bytes += one.n_bytes;
            f->mtime_ns = later_of(f->mtime_ns, one.mtime_ns);
            f->ctime_ns = later_of(f->ctime_ns, one.ctime_ns);
        }
        if (status == LB_STATUS_OK && hash) {
            lb_sha256_hex(&inner, one.sha256);
            lb_sha256_add_text(hash, entries[i]->d_name);
            lb_sha256_add_text(hash, one.sha256);
        }
        free(name);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static lb_status take(const char *path, const atomic_bool *cancel, lb_fingerprint *f, bool with_hash, lb_error *error) {
    struct stat st;
    lb_sha256 hash;
    *f = (lb_fingerprint){0};
    if (stat(path, &st))
        return fault(error, path, errno);
    lb_sha256_init(&hash);
    lb_status status;
    if (S_ISDIR(st.st_mode)) {
        add_look(f, &st, false); /* its own time: that of the last name that came or went */
        status = add_folder(path, cancel, f, with_hash ? &hash : NULL, error);
    } else {
        status = add_file(path, cancel, f, with_hash ? &hash : NULL, error);
    }
    if (status == LB_STATUS_OK && with_hash)
        lb_sha256_hex(&hash, f->sha256);
    if (status != LB_STATUS_OK)
        *f = (lb_fingerprint){0};
    return status;
}

lb_status lb_fingerprint_look(const char *path, lb_fingerprint *fingerprint, lb_error *error) {
    return take(path, NULL, fingerprint, false, error);
}

lb_status lb_fingerprint_content(const char *path, const atomic_bool *cancel, lb_fingerprint *fingerprint,
                                 lb_error *error) {
    return take(path, cancel, fingerprint, true, error);
}

bool lb_fingerprint_untouched(const lb_fingerprint *a, const lb_fingerprint *b) {
    return lb_fingerprint_same_look(a, b) && a->ctime_ns == b->ctime_ns;
}

bool lb_fingerprint_same_look(const lb_fingerprint *a, const lb_fingerprint *b) {
    return a->n_bytes == b->n_bytes && a->mtime_ns == b->mtime_ns;
}
