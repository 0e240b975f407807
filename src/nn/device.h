/* Devices that ggml offers, chosen by name, and what they hold.
 *
 *     lb_device device;
 *     lb_device_find("auto", &device, &error);
 *     printf("%s: %zu of %zu bytes free\n", device.description, device.free_bytes, device.total_bytes);
 */
#ifndef LB_NN_DEVICE_H
#define LB_NN_DEVICE_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct lb_device {
    void *handle; /* ggml_backend_dev_t */
    bool is_cpu;
    char name[64];         /* as ggml names it: "CPU", "CUDA0" */
    char description[128]; /* "NVIDIA H100 80GB HBM3" */
    size_t total_bytes;
    size_t free_bytes; /* when it was found */
} lb_device;

/* name: "auto" or NULL (the first GPU, else the CPU), "cpu", or a device's name in either case ("cuda0").
 * Errors: NOT_FOUND with the names that there are. Also routes ggml's and llama.cpp's logs into lb_log, once. */
lb_status lb_device_find(const char *name, lb_device *device, lb_error *error);

/* Bytes that this process holds on the device: on a GPU what is gone since lb_device_find (the device's other users
 * make it wrong); on the CPU the process's resident memory. */
size_t lb_device_reserved_bytes(const lb_device *device);

#endif
