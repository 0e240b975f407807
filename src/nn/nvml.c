#include "nn/nvml.h"

#include <ctype.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of nvml.h, which not every machine has: the layout of the first version of nvmlMemory_t has never changed. */
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

static int (*device_by_index)(unsigned index, void **device);
static int (*device_count)(unsigned *n);
static int (*device_by_uuid)(const char *uuid, void **device);
static int (*memory_info)(void *device, nvml_memory *memory);
static bool ready;
/* CUDA_VISIBLE_DEVICES as this process found it: lb_devices_limit changes it, and indices are to mean the same then. */
static char visible[1024];
static bool is_listed; /* it is there, perhaps empty: no card then */

static void *symbol(void *library, const char *name) {
    return library ? dlsym(library, name) : NULL;
}

static void start(void) {
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    is_listed = list != NULL;
    snprintf(visible, sizeof visible, "%s", list ? list : "");
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL); /* stays loaded */
    int (*init)(void) = (int (*)(void))symbol(library, "nvmlInit_v2");
    device_by_index = (int (*)(unsigned, void **))symbol(library, "nvmlDeviceGetHandleByIndex_v2");
    device_count = (int (*)(unsigned *))symbol(library, "nvmlDeviceGetCount_v2");
    device_by_uuid = (int (*)(const char *, void **))symbol(library, "nvmlDeviceGetHandleByUUID");
    memory_info = (int (*)(void *, nvml_memory *))symbol(library, "nvmlDeviceGetMemoryInfo");
    ready = init && device_by_index && device_by_uuid && memory_info && init() == 0;
}

/* NVML counts the cards by their places on the bus, CUDA the fastest first unless told to do the same. Where it was
 * told otherwise a number says nothing here. */
static bool counts_by_bus(void) {
    const char *order = getenv("CUDA_DEVICE_ORDER");
    return order && strcmp(order, "PCI_BUS_ID") == 0;
}

/* What CUDA_VISIBLE_DEVICES has at a place: a number, or the name of a card. Without it the place is the number. */
static bool read_entry(int index, char *entry, size_t n) {
    if (!is_listed)
        return snprintf(entry, n, "%d", index) > 0;
    const char *at = visible;
    for (int i = 0; at && i < index; i++)
        at = (at = strchr(at, ',')) ? at + 1 : NULL;
    if (!at)
        return false;
    at += strspn(at, " ");
    const size_t length = strcspn(at, ", ");
    return length > 0 && snprintf(entry, n, "%.*s", (int)length, at) < (int)n;
}

static bool find(int index, void **device) {
    unsigned n_cards = 0;
    char entry[128];
    if (!read_entry(index, entry, sizeof entry))
        return false;
    if (!isdigit((unsigned char)entry[0]))
        return device_by_uuid(entry, device) == 0;
    if (device_count && device_count(&n_cards) == 0 && n_cards > 1 && !counts_by_bus())
        return false;
    return device_by_index((unsigned)atoi(entry), device) == 0;
}

static void start_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
}

bool lb_nvml_read(int index, lb_nvml_memory *out) {
    start_once();
    void *device;
    nvml_memory memory;
    if (!ready || index < 0 || !find(index, &device) || memory_info(device, &memory) != 0)
        return false;
    *out = (lb_nvml_memory){(size_t)memory.total, (size_t)memory.free, (size_t)memory.used};
    return true;
}

int lb_nvml_count(void) {
    start_once();
    unsigned n = 0;
    if (!is_listed)
        return ready && device_count && device_count(&n) == 0 ? (int)n : 0;
    char entry[128];
    int n_listed = 0;
    while (read_entry(n_listed, entry, sizeof entry))
        n_listed++;
    return n_listed;
}

bool lb_nvml_entry(int index, char *entry, size_t n) {
    start_once();
    return index >= 0 && read_entry(index, entry, n);
}

int lb_nvml_index(const char *device_name) {
    return strncmp(device_name, "CUDA", 4) == 0 && isdigit((unsigned char)device_name[4]) ? atoi(device_name + 4) : -1;
}
