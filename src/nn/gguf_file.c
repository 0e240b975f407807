#include "nn/gguf_file.h"

#include "base/error.h"
#include "nn/log.h"

#include <errno.h>
#include <fcntl.h>
#include <gguf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct lb_gguf {
    char *path;
    struct gguf_context *header;
    const uint8_t *map;
    size_t map_bytes;
};

static lb_status map_file(lb_gguf *file, lb_error *error) {
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return lb_error_set(error, errno == ENOENT ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s: %s", file->path,
                            strerror(errno));
    lb_status status = LB_STATUS_OK;
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        status = lb_error_set(error, LB_STATUS_IO, "%s: not a regular file", file->path);
    } else if (st.st_size < 24) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: %lld bytes, too short for a GGUF file", file->path,
                              (long long)st.st_size);
    } else {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be mapped: %s", file->path, strerror(errno));
        } else {
            file->map = map;
            file->map_bytes = (size_t)st.st_size;
        }
    }
    close(fd);
    return status;
}

/* A file cut short keeps a whole header: compare what the header promises with what is there. */
static lb_status check_tensors(const lb_gguf *file, lb_error *error) {
    size_t data = gguf_get_data_offset(file->header);
    int64_t n = gguf_get_n_tensors(file->header);
    for (int64_t i = 0; i < n; i++) {
        size_t offset = gguf_get_tensor_offset(file->header, i), size = gguf_get_tensor_size(file->header, i);
        if (data > file->map_bytes || offset > file->map_bytes - data || size > file->map_bytes - data - offset)
            return lb_error_set(error, LB_STATUS_FORMAT,
                                "%s: truncated: tensor %s ends at byte %zu, the file at %zu; fetch or convert it again",
                                file->path, gguf_get_tensor_name(file->header, i), data + offset + size,
                                file->map_bytes);
    }
    return LB_STATUS_OK;
}

lb_status lb_gguf_open(const char *path, lb_gguf **out, lb_error *error) {
    *out = NULL;
    lb_gguf *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path))) {
        free(file);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for its header", path);
    }
    lb_status status = map_file(file, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    if (memcmp(file->map, GGUF_MAGIC, 4) != 0) {
        status =
            lb_error_set(error, LB_STATUS_FORMAT, "%s: not a GGUF file (it begins with other bytes than 'GGUF')", path);
        goto cleanup;
    }
    lb_nn_log_start();
    (void)lb_nn_last_log_error(); /* of something else */
    file->header = gguf_init_from_file(path, (struct gguf_init_params){.no_alloc = true});
    if (!file->header) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: malformed or truncated GGUF header: %s", path,
                              lb_nn_last_log_error());
        goto cleanup;
    }
    status = check_tensors(file, error);
cleanup:
    if (status != LB_STATUS_OK)
        lb_gguf_close(file);
    else
        *out = file;
    return status;
}

void lb_gguf_close(lb_gguf *file) {
    if (!file)
        return;
    gguf_free(file->header);
    if (file->map)
        munmap((void *)file->map, file->map_bytes);
    free(file->path);
    free(file);
}

const char *lb_gguf_path(const lb_gguf *file) {
    return file->path;
}

bool lb_gguf_has(const lb_gguf *file, const char *key) {
    return gguf_find_key(file->header, key) >= 0;
}

static bool read_int(const lb_gguf *file, int64_t id, int64_t *value) {
    switch (gguf_get_kv_type(file->header, id)) {
    case GGUF_TYPE_UINT8:
        *value = gguf_get_val_u8(file->header, id);
        return true;
    case GGUF_TYPE_INT8:
        *value = gguf_get_val_i8(file->header, id);
        return true;
    case GGUF_TYPE_UINT16:
        *value = gguf_get_val_u16(file->header, id);
        return true;
    case GGUF_TYPE_INT16:
        *value = gguf_get_val_i16(file->header, id);
        return true;
    case GGUF_TYPE_UINT32:
        *value = gguf_get_val_u32(file->header, id);
        return true;
    case GGUF_TYPE_INT32:
        *value = gguf_get_val_i32(file->header, id);
        return true;
    case GGUF_TYPE_UINT64: {
        uint64_t v = gguf_get_val_u64(file->header, id);
        *value = (int64_t)v;
        return v <= INT64_MAX;
    }
    case GGUF_TYPE_INT64:
        *value = gguf_get_val_i64(file->header, id);
        return true;
    default:
        return false;
    }
}

static lb_status bad_key(const lb_gguf *file, const char *key, int64_t id, const char *wanted, lb_error *error) {
    if (id < 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: the header has no '%s'", file->path, key);
    return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is not %s", file->path, key, wanted);
}

lb_status lb_gguf_int(const lb_gguf *file, const char *key, int64_t *value, lb_error *error) {
    *value = 0;
    int64_t id = gguf_find_key(file->header, key);
    if (id < 0 || !read_int(file, id, value))
        return bad_key(file, key, id, "an integer", error);
    return LB_STATUS_OK;
}

lb_status lb_gguf_float(const lb_gguf *file, const char *key, float *value, lb_error *error) {
    *value = 0;
    int64_t id = gguf_find_key(file->header, key);
    if (id < 0 || gguf_get_kv_type(file->header, id) != GGUF_TYPE_FLOAT32)
        return bad_key(file, key, id, "a 32-bit float", error);
    *value = gguf_get_val_f32(file->header, id);
    return LB_STATUS_OK;
}

lb_status lb_gguf_floats(const lb_gguf *file, const char *key, int n, float *values, lb_error *error) {
    int64_t id = gguf_find_key(file->header, key);
    if (id < 0 || gguf_get_kv_type(file->header, id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(file->header, id) != GGUF_TYPE_FLOAT32 || gguf_get_arr_n(file->header, id) != (size_t)n) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "an array of %d 32-bit floats", n);
        return bad_key(file, key, id, wanted, error);
    }
    memcpy(values, gguf_get_arr_data(file->header, id), (size_t)n * sizeof *values);
    return LB_STATUS_OK;
}

static bool array_int(const void *data, enum gguf_type type, size_t i, int *value) {
    int64_t v;
    switch (type) {
    case GGUF_TYPE_INT32:
        v = ((const int32_t *)data)[i];
        break;
    case GGUF_TYPE_UINT32:
        v = ((const uint32_t *)data)[i];
        break;
    case GGUF_TYPE_INT64:
        v = ((const int64_t *)data)[i];
        break;
    case GGUF_TYPE_UINT64:
        v = (int64_t)((const uint64_t *)data)[i];
        break;
    default:
        return false;
    }
    *value = (int)v;
    return v >= INT32_MIN && v <= INT32_MAX;
}

lb_status lb_gguf_ints(const lb_gguf *file, const char *key, int n_max, int *values, int *n, lb_error *error) {
    *n = 0;
    int64_t id = gguf_find_key(file->header, key);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "an array of 1 to %d integers", n_max);
    /* a string array's data must not be asked for: it has none */
    if (id < 0 || gguf_get_kv_type(file->header, id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(file->header, id) == GGUF_TYPE_STRING || gguf_get_arr_n(file->header, id) < 1 ||
        gguf_get_arr_n(file->header, id) > (size_t)n_max)
        return bad_key(file, key, id, wanted, error);
    size_t count = gguf_get_arr_n(file->header, id);
    for (size_t i = 0; i < count; i++)
        if (!array_int(gguf_get_arr_data(file->header, id), gguf_get_arr_type(file->header, id), i, &values[i]))
            return bad_key(file, key, id, wanted, error);
    *n = (int)count;
    return LB_STATUS_OK;
}

lb_status lb_gguf_string(const lb_gguf *file, const char *key, const char **value, lb_error *error) {
    *value = NULL;
    int64_t id = gguf_find_key(file->header, key);
    if (id < 0 || gguf_get_kv_type(file->header, id) != GGUF_TYPE_STRING)
        return bad_key(file, key, id, "a string", error);
    *value = gguf_get_val_str(file->header, id);
    return LB_STATUS_OK;
}

bool lb_gguf_bool_or(const lb_gguf *file, const char *key, bool otherwise) {
    int64_t id = gguf_find_key(file->header, key);
    return id >= 0 && gguf_get_kv_type(file->header, id) == GGUF_TYPE_BOOL ? gguf_get_val_bool(file->header, id)
                                                                           : otherwise;
}

int64_t lb_gguf_int_or(const lb_gguf *file, const char *key, int64_t otherwise) {
    int64_t id = gguf_find_key(file->header, key), value;
    return id >= 0 && read_int(file, id, &value) ? value : otherwise;
}

static int64_t string_array(const lb_gguf *file, const char *key) {
    int64_t id = gguf_find_key(file->header, key);
    if (id < 0 || gguf_get_kv_type(file->header, id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(file->header, id) != GGUF_TYPE_STRING)
        return -1;
    return id;
}

size_t lb_gguf_array_n(const lb_gguf *file, const char *key) {
    int64_t id = string_array(file, key);
    return id < 0 ? 0 : gguf_get_arr_n(file->header, id);
}

const char *lb_gguf_array_string(const lb_gguf *file, const char *key, size_t i) {
    int64_t id = string_array(file, key);
    return id < 0 || i >= gguf_get_arr_n(file->header, id) ? NULL : gguf_get_arr_str(file->header, id, i);
}

size_t lb_gguf_n_tensors(const lb_gguf *file) {
    return (size_t)gguf_get_n_tensors(file->header);
}

void lb_gguf_tensor_at(const lb_gguf *file, size_t i, lb_gguf_tensor *tensor) {
    int64_t id = (int64_t)i;
    tensor->name = gguf_get_tensor_name(file->header, id);
    tensor->type = gguf_get_tensor_type(file->header, id);
    memcpy(tensor->ne, gguf_get_tensor_ne(file->header, id), sizeof tensor->ne);
    tensor->data = file->map + gguf_get_data_offset(file->header) + gguf_get_tensor_offset(file->header, id);
    tensor->n_bytes = gguf_get_tensor_size(file->header, id);
}

bool lb_gguf_find(const lb_gguf *file, const char *name, lb_gguf_tensor *tensor) {
    int64_t id = gguf_find_tensor(file->header, name);
    if (id < 0)
        return false;
    lb_gguf_tensor_at(file, (size_t)id, tensor);
    return true;
}

lb_status lb_gguf_row(const lb_gguf_tensor *tensor, int64_t i, float *out, lb_error *error) {
    enum ggml_type type = (enum ggml_type)tensor->type;
    if (i < 0 || i >= tensor->ne[1])
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "tensor %s: row %lld of %lld", tensor->name,
                            (long long)i, (long long)tensor->ne[1]);
    const uint8_t *row = (const uint8_t *)tensor->data + (size_t)i * ggml_row_size(type, tensor->ne[0]);
    if (type == GGML_TYPE_F32) {
        memcpy(out, row, (size_t)tensor->ne[0] * sizeof *out);
        return LB_STATUS_OK;
    }
    const struct ggml_type_traits *traits = ggml_get_type_traits(type);
    if (!traits->to_float)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "tensor %s: type %s cannot be read", tensor->name,
                            ggml_type_name(type));
    traits->to_float(row, out, tensor->ne[0]);
    return LB_STATUS_OK;
}
