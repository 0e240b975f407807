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

/* name: "auto" or NULL (the first GPU, else the CPU), "cpu", or a device's name in either case ("cuda0"). If this is
 * the process's first look at devices it sees no other card afterwards (lb_devices_limit).
 * Errors: NOT_FOUND with the names that there are. Also routes ggml's and llama.cpp's logs into lb_log, once. */
lb_status lb_device_find(const char *name, lb_device *device, lb_error *error);

/* names: as above, or several separated by commas ("cuda0,cuda1"); "auto": every GPU, else the CPU. devices:
 * [LB_DEVICES_MAX]; their places are 0, 1, ... Errors: NOT_FOUND, INVALID_ARGUMENT (one named twice, the CPU beside
 * others). */
lb_status lb_devices_find(const char *names, lb_device *devices, int *n_devices, lb_error *error);

bool lb_device_is_auto(const char *names);

/* Every card that CUDA sees gets a context in a process that uses CUDA, about half a GiB, also those that the process
 * never uses. So these two are asked before anything else here, and before any other call into ggml or libllama:
 *
 * lb_devices_look: as lb_devices_find, by the driver's library alone and without a context; handles and descriptions
 * are not known. false: it cannot tell (not CUDA's devices, no such library, too late).
 *
 * lb_devices_limit: this process is to see the first n of these names alone ("cuda1,cuda0": not "auto"). Names stay as
 * they are outside. Sets CUDA_VISIBLE_DEVICES, so no other thread may run yet. false: nothing was changed, since these
 * are not CUDA's devices, or it is too late. */
bool lb_devices_look(const char *names, lb_device *devices, int *n_devices);
bool lb_devices_limit(const char *names, int n);

/* In a line of a library's log, [n]: its names of devices ("CUDA0", not "device 0") become those outside. */
void lb_devices_rename(char *line, size_t n);

/* The place of a device found before, by its handle; 0 for another one. */
int lb_device_place(const void *handle);

/* Free bytes of a device now; 0 where it does not say. */
size_t lb_device_free_bytes(const lb_device *device);

/* Bytes that this process holds on the device: on a GPU what is gone since it was first found (the device's other users
 * make it wrong; the context counts where the driver's library is there to ask); on the CPU the process's resident
 * memory. */
size_t lb_device_reserved_bytes(const lb_device *device);

#endif
