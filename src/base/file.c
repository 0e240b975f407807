#include "base/file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first guess of what to allocate: the file's size where it has one, else something for a pipe. */
static size_t first_capacity(int fd, size_t max_bytes) {
    struct stat info;
    size_t capacity = 64 * 1024;
    if (!fstat(fd, &info) && S_ISREG(info.st_mode) && info.st_size > 0)
        capacity = (unsigned long long)info.st_size < max_bytes ? (size_t)info.st_size : max_bytes;
    return capacity + 2; /* the NUL, and one byte more so that the end is seen without growing */
}

lb_status lb_file_read(const char *path, size_t max_bytes, char **bytes, size_t *n, lb_error *error) {
    *bytes = NULL;
    *n = 0;
    lb_status status = LB_STATUS_OK;
    char *buffer = NULL;
    size_t used = 0, capacity;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lb_error_set(error, errno == ENOENT || errno == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s: %s",
                            path, strerror(errno));
    capacity = first_capacity(fd, max_bytes);
    buffer = malloc(capacity);
    while (buffer) {
        ssize_t got = read(fd, buffer + used, capacity - used - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            status = errno == EISDIR ? lb_error_set(error, LB_STATUS_REFUSED, "%s: is a folder; name a file", path)
                                     : lb_error_set(error, LB_STATUS_IO, "%s: %s", path, strerror(errno));
            goto cleanup;
        }
        if (!got)
            break;
        used += (size_t)got;
        if (used > max_bytes) {
            status = lb_error_set(error, LB_STATUS_REFUSED, "%s: larger than the %zu bytes that are read at most", path,
                                  max_bytes);
            goto cleanup;
        }
        if (used + 1 == capacity) {
            char *larger = realloc(buffer, 2 * capacity);
            if (!larger) {
                free(buffer);
                buffer = NULL;
                break;
            }
            buffer = larger;
            capacity *= 2;
        }
    }
    if (!buffer) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for %zu bytes", path, capacity);
        goto cleanup;
    }
    buffer[used] = 0;
    *bytes = buffer;
    *n = used;
    buffer = NULL;
cleanup:
    free(buffer);
    close(fd);
    return status;
}

lb_status lb_folder_make(const char *folder, lb_error *error) {
    char path[PATH_MAX];
    if (!*folder)
        return lb_error_set(error, LB_STATUS_IO, "a folder without a name cannot be made");
    if ((size_t)snprintf(path, sizeof path, "%s", folder) >= sizeof path)
        return lb_error_set(error, LB_STATUS_IO, "%s: the path is too long", folder);
    for (char *at = path + 1;; at++) {
        if (*at && *at != '/')
            continue;
        char end = *at;
        *at = 0;
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            return lb_error_set(error, LB_STATUS_IO, "%s: the folder cannot be made: %s", path, strerror(errno));
        *at = end;
        if (end)
            continue;
        struct stat st; /* what is there may be a file */
        if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
            return lb_error_set(error, LB_STATUS_IO, "%s: is there already, and no folder", path);
        return LB_STATUS_OK;
    }
}

bool lb_user_cache(char *path, size_t n) {
    const char *own = getenv("LOWBEAM_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (own && own[0])
        length = snprintf(path, n, "%s", own);
    else if (xdg && xdg[0] == '/')
        length = snprintf(path, n, "%s/lowbeam", xdg);
    else if (home && home[0])
        length = snprintf(path, n, "%s/.cache/lowbeam", home);
    return length > 0 && (size_t)length < n;
}
