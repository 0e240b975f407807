/* Our operations on an NVIDIA card: kernels in cuda_kernels.cuh, products by cuBLAS. Built with -DLOWBEAM_CUDA=ON;
 * without it lb_cuda_open gives NULL and nothing else is called.
 *
 *     const char *why = NULL;
 *     lb_cuda *cuda = lb_cuda_open(weight->data, &why);   // on the device that holds these bytes
 *     why = lb_cuda_launch(cuda, op);                     // all tensors of op allocated on it
 *     why = lb_cuda_wait(cuda);
 *
 * Launches are in order with each other, but not with ggml's: whoever mixes both waits in between. Calls return NULL or
 * what failed, a text that stays.
 */
#ifndef LB_DETECTOR_CUDA_H
#define LB_DETECTOR_CUDA_H

#include "detector/ops.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lb_cuda lb_cuda;

/* NULL with *why NULL: not built in, or the memory is no CUDA device's. Memory on the device: lb_cuda_bytes (0 where it
 * is not built in). */
lb_cuda *lb_cuda_open(const void *device_memory, const char **why);
size_t lb_cuda_bytes(void);
/* The first launch of an operation prepares it (op->prepared): chooses a product's algorithm, converts a bias. */
const char *lb_cuda_launch(lb_cuda *cuda, lb_op *op);
const char *lb_cuda_wait(lb_cuda *cuda);
void lb_cuda_release(lb_op *op); /* what the first launch prepared */
void lb_cuda_close(lb_cuda *cuda);

#ifdef __cplusplus
}
#endif

#endif
