/* A model's weights on a device, loaded from GGUF by name: a missing tensor or a wrong shape is an error with its name.
 *
 *     lb_weights *weights;
 *     lb_weights_begin(&weights, n_tensors_at_most, &error);
 *     struct ggml_tensor *w = lb_weights_add(weights, file, "v.class_embd", (int64_t[4]){n_embd, 1, 1, 1}, &status,
 * &error);
 *     ...                                            // declare all of them first: one allocation follows
 *     lb_weights_load(weights, backend, LB_COMPONENT_VISION_WEIGHTS, &error);
 *     ...
 *     lb_weights_free(weights);
 */
#ifndef LB_NN_WEIGHTS_H
#define LB_NN_WEIGHTS_H

#include "memory/ledger.h"
#include "nn/device.h"
#include "nn/gguf_file.h"

#include <ggml-backend.h>

typedef struct lb_weights lb_weights;

lb_status lb_weights_begin(lb_weights **weights, size_t n_max, lb_error *error);

/* What is declared from here on as f16 or bf16 in the file becomes f32. Memory: a copy in f32 on the host, too. */
void lb_weights_widen(lb_weights *weights);

/* Declares one tensor of the file, kept in its type (f32, f16, bf16, q8_0). ne: the shape that it must have, fastest
 * axis first. On failure (FORMAT: missing, wrong shape; UNSUPPORTED: another type) returns NULL and sets *status; does
 * nothing when *status is not OK already, so that a whole list can be declared and checked once. */
struct ggml_tensor *lb_weights_add(lb_weights *weights, const lb_gguf *file, const char *name, const int64_t ne[4],
                                   lb_status *status, lb_error *error);

/* The same for several tensors of one type and row length that are stacked along axis 1 into one, so that one product
 * serves for all (query, key and value). ne: of each part. */
struct ggml_tensor *lb_weights_add_stacked(lb_weights *weights, const lb_gguf *file, const char *const *names,
                                           int n_names, const int64_t ne[4], lb_status *status, lb_error *error);

/* A tensor whose values the caller computes: values [ne0*ne1*ne2*ne3] f32, copied. */
struct ggml_tensor *lb_weights_add_values(lb_weights *weights, const char *name, const int64_t ne[4],
                                          const float *values, lb_status *status, lb_error *error);

/* Allocates all of them in one buffer of the backend's device and copies the bytes there.
 * Errors: OUT_OF_MEMORY (the bytes asked for and the device's name). Memory: the sum of the tensors, each rounded up to
 * the device's alignment. */
lb_status lb_weights_load(lb_weights *weights, ggml_backend_t backend, lb_component component, lb_error *error);

/* Bytes that lb_weights_load will take on the device; nothing is loaded. */
size_t lb_weights_measure(const lb_weights *weights, const lb_device *device);

/* Has every declared tensor count as allocated, so that graphs over them can be measured (not run). Not to be followed
 * by a load. */
void lb_weights_pretend(lb_weights *weights);

/* For weights that are on the device only while they are used: loads all of them into pinned host memory instead
 * (ledger: HOST_WEIGHTS). lb_weights_bring then puts them onto the device, in the order of the backend's stream, and
 * lb_weights_leave takes them away again; the tensors lie elsewhere after each lb_weights_bring, so graphs must be
 * allocated anew. Errors: OUT_OF_MEMORY. */
lb_status lb_weights_load_host(lb_weights *weights, const lb_device *device, lb_component component, lb_error *error);
lb_status lb_weights_bring(lb_weights *weights, ggml_backend_t backend, lb_error *error);
void lb_weights_leave(lb_weights *weights); /* does nothing where they have no copy on the host */

size_t lb_weights_bytes(const lb_weights *weights);
void lb_weights_free(lb_weights *weights);

#endif
