/* A GGUF file's header, read with every fault named, and its tensors' bytes.
 *
 *     lb_gguf *file;
 *     if (lb_gguf_open("mmproj.gguf", &file, &error) != LB_STATUS_OK) ...
 *     int64_t n_layer;
 *     lb_gguf_int(file, "clip.vision.block_count", &n_layer, &error);
 *     lb_gguf_close(file);
 *
 * The file is memory-mapped; nothing of the weights is read until somebody touches it.
 */
#ifndef LB_NN_GGUF_FILE_H
#define LB_NN_GGUF_FILE_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lb_gguf lb_gguf;

/* One tensor as the header describes it. ne[0] is the fastest axis (the last one in PyTorch's shape). */
typedef struct lb_gguf_tensor {
    const char *name;
    int type;         /* enum ggml_type */
    int64_t ne[4];    /* unused ones are 1 */
    const void *data; /* in the mapped file, good until lb_gguf_close */
    size_t n_bytes;
} lb_gguf_tensor;

/* Errors: NOT_FOUND, IO, FORMAT (not GGUF, a malformed header, a tensor that reaches past the end of the file). */
lb_status lb_gguf_open(const char *path, lb_gguf **file, lb_error *error);
void lb_gguf_close(lb_gguf *file);
const char *lb_gguf_path(const lb_gguf *file);

/* Values by key; the integer ones accept every integer type of GGUF. Errors: FORMAT, naming file and key, when the key
 * is missing or of another type. The _or forms give the default when the key is missing. */
bool lb_gguf_has(const lb_gguf *file, const char *key);
lb_status lb_gguf_int(const lb_gguf *file, const char *key, int64_t *value, lb_error *error);
lb_status lb_gguf_float(const lb_gguf *file, const char *key, float *value, lb_error *error);
lb_status lb_gguf_floats(const lb_gguf *file, const char *key, int n, float *values, lb_error *error);
/* An array of any integer type: values [n_max], *n of them; longer ones and values beyond int are FORMAT. */
lb_status lb_gguf_ints(const lb_gguf *file, const char *key, int n_max, int *values, int *n, lb_error *error);
lb_status lb_gguf_string(const lb_gguf *file, const char *key, const char **value, lb_error *error);
bool lb_gguf_bool_or(const lb_gguf *file, const char *key, bool otherwise);
int64_t lb_gguf_int_or(const lb_gguf *file, const char *key, int64_t otherwise);

/* Strings of an array (a vocabulary). *n is 0 when the key is missing or no string array. */
size_t lb_gguf_array_n(const lb_gguf *file, const char *key);
const char *lb_gguf_array_string(const lb_gguf *file, const char *key, size_t i);

size_t lb_gguf_n_tensors(const lb_gguf *file);
void lb_gguf_tensor_at(const lb_gguf *file, size_t i, lb_gguf_tensor *tensor);
bool lb_gguf_find(const lb_gguf *file, const char *name, lb_gguf_tensor *tensor); /* false: no such tensor */

/* Row i of a 2-d tensor as f32, whatever its type: out [ne0]. Errors: UNSUPPORTED (a type that cannot be read),
 * INVALID_ARGUMENT (no such row). */
lb_status lb_gguf_row(const lb_gguf_tensor *tensor, int64_t i, float *out, lb_error *error);

#endif
