#include "detector/safetensors.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <ggml.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The format's own limit on the header (safetensors 0.4: MAX_HEADER_SIZE). */
#define MAX_HEADER_BYTES ((uint64_t)100000000)

struct lb_safetensors {
    char *label;
    void *map; /* NULL when the bytes are the caller's */
    size_t map_bytes;
    json_t *header; /* the tensors' names live in it */
    lb_safetensors_tensor *tensors;
    size_t n;
    size_t *by_name; /* [n] indices into tensors, sorted by name */
};

static const struct {
    const char *name;
    size_t n_bytes;
    lb_safetensors_dtype dtype;
} dtypes[] = {
    {"F32", 4, LB_SAFETENSORS_F32},       {"F16", 2, LB_SAFETENSORS_F16},       {"BF16", 2, LB_SAFETENSORS_BF16},
    {"F64", 8, LB_SAFETENSORS_OTHER},     {"I64", 8, LB_SAFETENSORS_OTHER},     {"U64", 8, LB_SAFETENSORS_OTHER},
    {"I32", 4, LB_SAFETENSORS_OTHER},     {"U32", 4, LB_SAFETENSORS_OTHER},     {"I16", 2, LB_SAFETENSORS_OTHER},
    {"U16", 2, LB_SAFETENSORS_OTHER},     {"I8", 1, LB_SAFETENSORS_OTHER},      {"U8", 1, LB_SAFETENSORS_OTHER},
    {"BOOL", 1, LB_SAFETENSORS_OTHER},    {"F8_E4M3", 1, LB_SAFETENSORS_OTHER}, {"F8_E5M2", 1, LB_SAFETENSORS_OTHER},
    {"F8_E8M0", 1, LB_SAFETENSORS_OTHER},
};

static lb_status bad(const lb_safetensors *file, const char *name, const char *what, lb_error *error) {
    return lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor %s: %s; fetch the file again", file->label, name, what);
}

/* A JSON value as a number from 0 up to most. */
static bool read_count(const json_t *value, uint64_t most, uint64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > most)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static lb_status read_tensor(const lb_safetensors *file, const char *name, const json_t *entry, const uint8_t *data,
                             size_t data_bytes, lb_safetensors_tensor *t, lb_error *error) {
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    if (!*name)
        return bad(file, "''", "has no name", error);
    if (!json_is_object(entry) || json_object_size(entry) != 3 || !json_is_string(dtype) || !json_is_array(shape) ||
        !json_is_array(offsets))
        return bad(file, name, "is not {dtype, shape, data_offsets}", error);
    *t = (lb_safetensors_tensor){.name = name};
    size_t size = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(json_string_value(dtype), dtypes[i].name) == 0) {
            t->dtype_name = dtypes[i].name;
            t->dtype = dtypes[i].dtype;
            size = dtypes[i].n_bytes;
        }
    }
    if (!size)
        return bad(file, name, "its dtype is none that safetensors has", error);
    if (json_array_size(shape) > LB_SAFETENSORS_MAX_DIMS)
        return bad(file, name, "has more than 8 dimensions", error);
    t->n_dims = (int)json_array_size(shape);
    uint64_t n = 1;
    for (int d = 0; d < t->n_dims; d++) {
        uint64_t side;
        if (!read_count(json_array_get(shape, (size_t)d), INT64_MAX, &side))
            return bad(file, name, "its shape has something else than numbers from 0 up", error);
        /* A side of 0 among absurd ones gives 0 elements, whatever was multiplied before. */
        if (__builtin_mul_overflow(n, side, &n) || n > (uint64_t)INT64_MAX / 8)
            return bad(file, name, "its shape is larger than any memory", error);
        t->shape[d] = (int64_t)side;
    }
    t->n_elements = (int64_t)n;
    uint64_t begin, end;
    if (json_array_size(offsets) != 2 || !read_count(json_array_get(offsets, 0), data_bytes, &begin) ||
        !read_count(json_array_get(offsets, 1), data_bytes, &end) || begin > end)
        return bad(file, name, "its data_offsets reach past the end of the file (truncated?) or are no offsets", error);
    if (end - begin != n * size)
        return bad(file, name, "its data_offsets do not fit its shape and dtype", error);
    t->n_bytes = (size_t)(end - begin);
    t->data = data + begin;
    return LB_STATUS_OK;
}

static int by_data(const void *a, const void *b) {
    const lb_safetensors_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->n_bytes != y->n_bytes) /* an empty one before the one that begins where it stands */
        return x->n_bytes < y->n_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, void *tensors) {
    const lb_safetensors_tensor *t = tensors;
    return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

/* The tensors, sorted by their data, fill it: no byte is read twice and none is left over. */
static lb_status check_order(const lb_safetensors *file, const uint8_t *data, size_t data_bytes, lb_error *error) {
    const uint8_t *at = data;
    for (size_t i = 0; i < file->n; i++) {
        const lb_safetensors_tensor *t = &file->tensors[i];
        if (t->data < at)
            return bad(file, t->name, "shares its bytes with another tensor", error);
        if (t->data > at)
            return bad(file, t->name, "bytes before it belong to no tensor", error);
        at += t->n_bytes;
    }
    if (at != data + data_bytes)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: %zu bytes at its end belong to no tensor; fetch the file again", file->label,
                            (size_t)(data + data_bytes - at));
    return LB_STATUS_OK;
}

static lb_status parse(lb_safetensors *file, const uint8_t *bytes, size_t n_bytes, lb_error *error) {
    if (n_bytes < 8)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: %zu bytes, too short for a safetensors file", file->label,
                            n_bytes);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; i--)
        header_bytes = header_bytes << 8 | bytes[i];
    if (header_bytes > MAX_HEADER_BYTES)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: a header of %llu bytes is no safetensors header (100 MB at most)", file->label,
                            (unsigned long long)header_bytes);
    if (header_bytes > n_bytes - 8)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: truncated: its header has %llu bytes, the file %zu; fetch the file again", file->label,
                            (unsigned long long)header_bytes, n_bytes);
    const uint8_t *data = bytes + 8 + header_bytes;
    size_t data_bytes = n_bytes - 8 - (size_t)header_bytes;
    json_error_t fault;
    file->header = json_loadb((const char *)bytes + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &fault);
    if (!file->header)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: its header is no JSON: %s (byte %d)", file->label, fault.text,
                            fault.position);
    if (!json_is_object(file->header))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: its header is no JSON object", file->label);

    size_t n = json_object_size(file->header);
    file->tensors = calloc(n + 1, sizeof *file->tensors);
    file->by_name = calloc(n + 1, sizeof *file->by_name);
    if (!file->tensors || !file->by_name)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for its header", file->label);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        lb_status status = read_tensor(file, name, entry, data, data_bytes, &file->tensors[file->n], error);
        if (status != LB_STATUS_OK)
            return status;
        file->n++;
    }
    qsort(file->tensors, file->n, sizeof *file->tensors, by_data);
    for (size_t i = 0; i < file->n; i++)
        file->by_name[i] = i;
    qsort_r(file->by_name, file->n, sizeof *file->by_name, by_name, file->tensors);
    return check_order(file, data, data_bytes, error);
}

lb_status lb_safetensors_open_bytes(const char *label, const void *bytes, size_t n_bytes, lb_safetensors **out,
                                    lb_error *error) {
    *out = NULL;
    lb_safetensors *file = calloc(1, sizeof *file);
    if (!file || !(file->label = strdup(label))) {
        free(file);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for its header", label);
    }
    lb_status status = parse(file, bytes, n_bytes, error);
    if (status != LB_STATUS_OK)
        lb_safetensors_close(file);
    else
        *out = file;
    return status;
}

lb_status lb_safetensors_open(const char *path, lb_safetensors **out, lb_error *error) {
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return lb_error_set(error, errno == ENOENT || errno == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s: %s",
                            path, strerror(errno));
    lb_status status;
    struct stat st;
    void *map = MAP_FAILED;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        status = lb_error_set(error, LB_STATUS_IO, "%s: not a regular file", path);
    } else if (st.st_size < 8) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: %lld bytes, too short for a safetensors file", path,
                              (long long)st.st_size);
    } else if ((map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
        status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    } else if ((status = lb_safetensors_open_bytes(path, map, (size_t)st.st_size, out, error)) == LB_STATUS_OK) {
        (*out)->map = map;
        (*out)->map_bytes = (size_t)st.st_size;
    } else {
        munmap(map, (size_t)st.st_size);
    }
    close(fd);
    return status;
}

void lb_safetensors_close(lb_safetensors *file) {
    if (!file)
        return;
    json_decref(file->header);
    if (file->map)
        munmap(file->map, file->map_bytes);
    free(file->tensors);
    free(file->by_name);
    free(file->label);
    free(file);
}

size_t lb_safetensors_n(const lb_safetensors *file) {
    return file->n;
}

const lb_safetensors_tensor *lb_safetensors_at(const lb_safetensors *file, size_t i) {
    return &file->tensors[i];
}

const lb_safetensors_tensor *lb_safetensors_find(const lb_safetensors *file, const char *name) {
    size_t low = 0, high = file->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const lb_safetensors_tensor *t = &file->tensors[file->by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

lb_status lb_safetensors_f32(const lb_safetensors_tensor *tensor, int64_t first, int64_t n, float *out,
                             lb_error *error) {
    if (first < 0 || n < 0 || first > tensor->n_elements || n > tensor->n_elements - first)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "tensor %s: elements %lld to %lld of %lld", tensor->name,
                            (long long)first, (long long)(first + n), (long long)tensor->n_elements);
    if (tensor->dtype == LB_SAFETENSORS_F32) {
        if (n)
            memcpy(out, tensor->data + (size_t)first * 4, (size_t)n * 4);
        return LB_STATUS_OK;
    }
    if (tensor->dtype == LB_SAFETENSORS_OTHER)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "tensor %s: dtype %s (F32, F16 and BF16 are read)",
                            tensor->name, tensor->dtype_name);
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *at = tensor->data + (size_t)(first + i) * 2;
        uint16_t bits = (uint16_t)(at[0] | at[1] << 8);
        if (tensor->dtype == LB_SAFETENSORS_F16) {
            out[i] = ggml_fp16_to_fp32(bits);
        } else {
            uint32_t wide = (uint32_t)bits << 16;
            memcpy(&out[i], &wide, 4);
        }
    }
    return LB_STATUS_OK;
}
