#include "base/file.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
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
