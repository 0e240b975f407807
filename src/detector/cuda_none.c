/* Without CUDA: there are no kernels of ours. */
#include "detector/cuda.h"

#ifndef LB_HAVE_CUDA

lb_cuda *lb_cuda_open(const void *device_memory, const char **why) {
    (void)device_memory;
    *why = NULL;
    return NULL;
}

size_t lb_cuda_bytes(void) {
    return 0;
}

const char *lb_cuda_launch(lb_cuda *cuda, lb_op *op) {
    (void)cuda, (void)op;
    return "built without CUDA";
}

const char *lb_cuda_wait(lb_cuda *cuda) {
    (void)cuda;
    return "built without CUDA";
}

void lb_cuda_release(lb_op *op) {
    (void)op;
}

void lb_cuda_close(lb_cuda *cuda) {
    (void)cuda;
}

#endif
