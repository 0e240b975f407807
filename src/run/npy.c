#include "run/npy.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* parts: [n_parts], each of n bytes */
static lb_status write_file(const char *folder, const char *name, const void *head, size_t n_head,
                            const void *const *part, size_t n_parts, size_t n, lb_error *error) {
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return lb_error_set(error, LB_STATUS_IO, "%s/%s: the path is too long", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        return lb_error_set(error, LB_STATUS_IO, "%s: %s", path, strerror(errno));
    bool good = fwrite(head, 1, n_head, file) == n_head;
    for (size_t i = 0; i < n_parts && n > 0 && good; i++)
        good = fwrite(part[i], 1, n, file) == n;
    if (fclose(file) != 0 || !good)
        return lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", path, strerror(errno));
    return LB_STATUS_OK;
}

/* Magic, version, header's length, header; padded with spaces so that the data begins at a multiple of 64. Returns the
 * header's size; *n_entry: bytes of one entry of the slowest axis. */
static size_t make_head(const char *type, int n_dims, const int64_t *shape, unsigned char head[384], size_t *n_entry) {
    char dims[128] = "";
    *n_entry = (size_t)(type[2] - '0');
    for (int i = 0; i < n_dims; i++) {
        size_t used = strlen(dims);
        snprintf(dims + used, sizeof dims - used, "%lld,%s", (long long)shape[i], i + 1 < n_dims ? " " : "");
        if (i > 0)
            *n_entry *= (size_t)shape[i];
    }
    char text[256];
    int length = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type, dims);
    size_t total = (10 + (size_t)length + 1 + 63) / 64 * 64;
    memset(head, ' ', total);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    head[8] = (unsigned char)((total - 10) & 0xff);
    head[9] = (unsigned char)((total - 10) >> 8);
    memcpy(head + 10, text, (size_t)length);
    head[total - 1] = '\n';
    return total;
}

lb_status lb_npy_write(const char *folder, const char *name, const char *type, int n_dims, const int64_t *shape,
                       const void *data, lb_error *error) {
    unsigned char head[384];
    size_t n_entry, n_head = make_head(type, n_dims, shape, head, &n_entry);
    return write_file(folder, name, head, n_head, &data, 1, n_entry * (size_t)shape[0], error);
}

lb_status lb_npy_write_parts(const char *folder, const char *name, const char *type, int n_dims, const int64_t *shape,
                             const void *const *part, lb_error *error) {
    unsigned char head[384];
    size_t n_entry, n_head = make_head(type, n_dims, shape, head, &n_entry);
    return write_file(folder, name, head, n_head, part, (size_t)shape[0], n_entry, error);
}

lb_status lb_text_write(const char *folder, const char *name, const char *text, size_t n, lb_error *error) {
    return write_file(folder, name, "", 0, (const void *const[]){text}, 1, n, error);
}

void lb_name_clean(const char *name, char *out, size_t n) {
    size_t i = 0;
    for (; name[i] && i + 1 < n; i++) {
        char c = name[i];
        bool keep = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '_' || c == '-';
        out[i] = keep ? c : '_';
    }
    out[i] = 0;
}
