/* Devices that ggml offers, chosen by name, and what they hold.
 *
 *     lb_device device;
 *     lb_device_find("auto", &device, &error);
 *     printf("%s: %zu of %zu bytes free\n", device.description, device.free_bytes, device.total_bytes);
 */
#ifndef LB_NN_DEVICE_H
#define LB_NN_DEVICE_H

#include "memory/ledger.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct lb_device {
    void *handle; /* ggml_backend_dev_t */
    bool is_cpu;
    char name[64];         /* as ggml names it: "CPU", "CUDA0" */
    char description[128]; /* "NVIDIA H100 80GB HBM3" */
    size_t total_bytes;
    size_t free_bytes;       /* when it was found */
    size_t first_free_bytes; /* before this process took anything, its context included */
    int place;               /* among the devices that this process uses: the ledger's number for it */
} lb_device;

/* name: "auto" or NULL (the first GPU, else the CPU), "cpu", or a device's name in either case ("cuda0").
 * Errors: NOT_FOUND with the names that there are. Also routes ggml's and llama.cpp's logs into lb_log, once. */
lb_status lb_device_find(const char *name, lb_device *device, lb_error *error);

/* names: as above, or several separated by commas ("cuda0,cuda1"); "auto": every GPU, else the CPU. devices:
 * [LB_DEVICES_MAX]; their places are 0, 1, ... Errors: NOT_FOUND, INVALID_ARGUMENT (one named twice, the CPU beside
 * others). */
lb_status lb_devices_find(const char *names, lb_device *devices, int *n_devices, lb_error *error);

/* The place of a device found before, by its handle; 0 for another one. */
int lb_device_place(const void *handle);

/* Free bytes of a device now; 0 where it does not say. */
size_t lb_device_free_bytes(const lb_device *device);

/* Bytes that this process holds on the device: on a GPU what is gone since it was first found (the device's other users
 * make it wrong; the context counts where the driver's library is there to ask); on the CPU the process's resident
 * memory. */
size_t lb_device_reserved_bytes(const lb_device *device);

#endif
