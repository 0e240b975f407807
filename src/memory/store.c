#include "memory/store.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char MAGIC[] = "lowbeam entry 1\n", LOCK[] = ".lock", PARTIAL[] = ".partial";

typedef struct header {
    char magic[sizeof MAGIC - 1];
    uint64_t n_bytes;
    char sha256[LB_SHA256_HEX];
    char rest[LB_STORE_HEADER - (sizeof MAGIC - 1) - 8 - LB_SHA256_HEX];
} header;
_Static_assert(sizeof(header) <= LB_STORE_HEADER && LB_STORE_HEADER % 64 == 0, "what follows is aligned");

struct lb_store {
    char *folder;
    int fd; /* of the folder */
    size_t limit;
};

lb_status lb_store_open(const char *folder, size_t limit_bytes, lb_store **out, lb_error *error) {
    *out = NULL;
    lb_store *store = calloc(1, sizeof *store);
    char *copy = strdup(folder);
    if (!store || !copy || !*copy) {
        free(store);
        free(copy);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", folder);
    }
    *store = (lb_store){.folder = copy, .fd = -1, .limit = limit_bytes};
    lb_status status = lb_folder_make(copy, error);
    if (status == LB_STATUS_OK && (store->fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        status = lb_error_set(error, LB_STATUS_IO, "%s: %s", folder, strerror(errno));
    if (status == LB_STATUS_OK && faccessat(store->fd, ".", W_OK | X_OK, 0) != 0)
        status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", folder, strerror(errno));
    if (status != LB_STATUS_OK) {
        lb_store_close(store);
        return status;
    }
    *out = store;
    return LB_STATUS_OK;
}

void lb_store_close(lb_store *store) {
    if (!store)
        return;
    if (store->fd >= 0)
        close(store->fd);
    free(store->folder);
    free(store);
}

static void hash_of(const void *data, size_t n, char *hex) {
    lb_sha256 hash;
    lb_sha256_init(&hash);
    lb_sha256_add(&hash, data, n);
    lb_sha256_hex(&hash, hex);
}

static bool is_whole(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= LB_STORE_HEADER)
        return false;
    const size_t bytes = (size_t)st.st_size;
    const uint8_t *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return false;
    header h;
    char hex[LB_SHA256_HEX];
    memcpy(&h, map, sizeof h);
    bool whole = memcmp(h.magic, MAGIC, sizeof h.magic) == 0 && h.n_bytes == bytes - LB_STORE_HEADER;
    if (whole) {
        hash_of(map + LB_STORE_HEADER, bytes - LB_STORE_HEADER, hex);
        whole = memcmp(h.sha256, hex, sizeof hex) == 0;
    }
    munmap((void *)map, bytes);
    return whole;
}

int lb_store_get(lb_store *store, const char *name) {
    int fd = openat(store->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -1;
    if (!is_whole(fd)) {
        lb_log(LB_LOG_WARN, "cache", "%s/%s is damaged: it is made anew", store->folder, name);
        unlinkat(store->fd, name, 0);
        close(fd);
        return -1;
    }
    futimens(fd, (const struct timespec[]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}}); /* the youngest */
    return fd;
}

typedef struct file {
    char name[NAME_MAX + 1];
    size_t bytes;
    struct timespec used;
} file;

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const file *)a)->used, *y = &((const file *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* With the lock held: nobody is writing, so a partial file is one that somebody died over. */
static lb_status list(const lb_store *store, file **files, size_t *n, lb_error *error) {
    *files = NULL;
    *n = 0;
    const int fd = openat(store->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (!folder) {
        if (fd >= 0)
            close(fd);
        return lb_error_set(error, LB_STATUS_IO, "%s: %s", store->folder, strerror(errno));
    }
    lb_status status = LB_STATUS_OK;
    for (const struct dirent *e; status == LB_STATUS_OK && (e = readdir(folder));) {
        struct stat st;
        if (strcmp(e->d_name, PARTIAL) == 0)
            unlinkat(store->fd, PARTIAL, 0);
        if (e->d_name[0] == '.' || fstatat(store->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if ((*n & (*n + 1)) == 0) { /* 0, 1, 3, 7 ...: full */
            file *more = realloc(*files, (2 * *n + 1) * sizeof **files);
            if (!more) {
                status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", store->folder);
                break;
            }
            *files = more;
        }
        file *f = &(*files)[(*n)++];
        snprintf(f->name, sizeof f->name, "%s", e->d_name);
        f->bytes = (size_t)st.st_size;
        f->used = st.st_mtim;
    }
    closedir(folder);
    return status;
}

/* Away with the oldest, until bytes more have room. What is there under name already goes first: it is replaced. */
static lb_status make_room(const lb_store *store, const char *name, size_t bytes, lb_error *error) {
    file *files;
    size_t n, held = 0;
    lb_status status = list(store, &files, &n, error);
    unlinkat(store->fd, name, 0);
    for (size_t i = 0; i < n; i++)
        if (strcmp(files[i].name, name) == 0)
            files[i].bytes = 0;
        else
            held += files[i].bytes;
    if (n > 0)
        qsort(files, n, sizeof *files, by_use);
    for (size_t i = 0; i < n && status == LB_STATUS_OK && held > store->limit - bytes; i++) {
        if (files[i].bytes == 0)
            continue;
        if (unlinkat(store->fd, files[i].name, 0) != 0 && errno != ENOENT)
            status = lb_error_set(error, LB_STATUS_IO, "%s/%s: cannot be removed: %s", store->folder, files[i].name,
                                  strerror(errno));
        held -= files[i].bytes;
    }
    free(files);
    return status;
}

static bool write_all(int fd, const void *data, size_t n) {
    for (size_t done = 0; done < n;) {
        const ssize_t written = write(fd, (const uint8_t *)data + done, n - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        done += (size_t)written;
    }
    return true;
}

static lb_status write_entry(const lb_store *store, const char *name, const void *data, size_t n, lb_error *error) {
    union {
        header h;
        char bytes[LB_STORE_HEADER];
    } head = {0};
    memcpy(head.h.magic, MAGIC, sizeof head.h.magic);
    head.h.n_bytes = n;
    hash_of(data, n, head.h.sha256);
    const int fd = openat(store->fd, PARTIAL, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    const bool written =
        fd >= 0 && write_all(fd, head.bytes, sizeof head.bytes) && write_all(fd, data, n) && fsync(fd) == 0;
    int cause = errno;
    if (fd >= 0)
        close(fd);
    if (written && renameat(store->fd, PARTIAL, store->fd, name) == 0) {
        fsync(store->fd);
        return LB_STATUS_OK;
    }
    if (written)
        cause = errno;
    unlinkat(store->fd, PARTIAL, 0);
    return lb_error_set(error, LB_STATUS_IO, "%s/%s: cannot be written: %s", store->folder, name, strerror(cause));
}

lb_status lb_store_put(lb_store *store, const char *name, const void *data, size_t n, lb_error *error) {
    if (n == 0 || store->limit < LB_STORE_HEADER || n > store->limit - LB_STORE_HEADER)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "%s/%s: %zu bytes, more than the limit of %zu",
                            store->folder, name, n, store->limit);
    /* opened each time: flock is of the open file, so threads, too, wait for each other */
    const int lock = openat(store->fd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    while (lock >= 0 && flock(lock, LOCK_EX) != 0 && errno == EINTR)
        continue;
    lb_status status = lock >= 0 ? make_room(store, name, n + LB_STORE_HEADER, error)
                                 : lb_error_set(error, LB_STATUS_IO, "%s/%s: %s", store->folder, LOCK, strerror(errno));
    if (status == LB_STATUS_OK)
        status = write_entry(store, name, data, n, error);
    if (lock >= 0)
        close(lock);
    return status;
}

void lb_store_rename(lb_store *store, const char *from, const char *to) {
    if (to)
        renameat(store->fd, from, store->fd, to);
    else
        unlinkat(store->fd, from, 0);
}
