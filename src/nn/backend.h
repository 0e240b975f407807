/* A device made ready to compute.
 *
 *     ggml_backend_t backend;
 *     lb_backend_open(&device, n_threads, &backend, &error);
 *     ...
 *     ggml_backend_free(backend);
 */
#ifndef LB_NN_BACKEND_H
#define LB_NN_BACKEND_H

#include "nn/device.h"

#include <ggml-backend.h>

/* n_threads: of the CPU backend; 0: one a core. Errors: BACKEND. Memory on the device: a GPU's backend takes its pool
 * and workspaces when it first multiplies. */
lb_status lb_backend_open(const lb_device *device, int n_threads, ggml_backend_t *backend, lb_error *error);

#endif
