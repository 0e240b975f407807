/* The header of a .safetensors file, every field of it checked, and its tensors' bytes.
 *
 *     lb_safetensors *file;
 *     if (lb_safetensors_open("model.safetensors", &file, &error) != LB_STATUS_OK) ...
 *     const lb_safetensors_tensor *t = lb_safetensors_find(file, "model.level_embed");
 *     lb_safetensors_f32(t, 0, t->n_elements, values);
 *     lb_safetensors_close(file);
 *
 * The layout: u64 (little endian) n; n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...,
 * "__metadata__": {...}}; data, which the tensors fill without gap or overlap. The file is memory-mapped.
 */
#ifndef LB_DETECTOR_SAFETENSORS_H
#define LB_DETECTOR_SAFETENSORS_H

#include "lowbeam/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lb_safetensors lb_safetensors;

typedef enum lb_safetensors_dtype {
    LB_SAFETENSORS_F32,
    LB_SAFETENSORS_F16,
    LB_SAFETENSORS_BF16,
    LB_SAFETENSORS_OTHER /* integers, f64, f8: known to the format, not read here */
} lb_safetensors_dtype;

enum { LB_SAFETENSORS_MAX_DIMS = 8 };

typedef struct lb_safetensors_tensor {
    const char *name;
    const char *dtype_name; /* "F32", as the file spells it */
    lb_safetensors_dtype dtype;
    int n_dims;
    int64_t shape[LB_SAFETENSORS_MAX_DIMS]; /* as PyTorch's: the last axis is the fastest */
    int64_t n_elements;
    const uint8_t *data; /* [n_bytes], aligned to nothing; good until lb_safetensors_close */
    size_t n_bytes;
} lb_safetensors_tensor;

/* Errors: NOT_FOUND, IO, FORMAT (what is wrong, of which tensor), OUT_OF_MEMORY. */
lb_status lb_safetensors_open(const char *path, lb_safetensors **file, lb_error *error);

/* The same from bytes that stay the caller's and must outlive *file. label: stands in messages. */
lb_status lb_safetensors_open_bytes(const char *label, const void *bytes, size_t n_bytes, lb_safetensors **file,
                                    lb_error *error);
void lb_safetensors_close(lb_safetensors *file);

/* In the order of their data. */
size_t lb_safetensors_n(const lb_safetensors *file);
const lb_safetensors_tensor *lb_safetensors_at(const lb_safetensors *file, size_t i);
const lb_safetensors_tensor *lb_safetensors_find(const lb_safetensors *file, const char *name); /* NULL: none */

/* Elements [first, first + n) as f32. Errors: UNSUPPORTED (dtype), INVALID_ARGUMENT (past the end). */
lb_status lb_safetensors_f32(const lb_safetensors_tensor *tensor, int64_t first, int64_t n, float *out,
                             lb_error *error);

#endif
