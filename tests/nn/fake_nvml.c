/* The driver's library to the pretended cards of fake_gpu.c: a libnvidia-ml.so.1 for LD_LIBRARY_PATH. All of a card is
 * free, whoever asks: what other processes take is a ballast's matter. */
#include "memory/plan.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct memory {
    unsigned long long total, free, used;
} memory;

static size_t bytes[LB_DEVICES_MAX];
static int n_cards;

int nvmlInit_v2(void);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device);
int nvmlDeviceGetMemoryInfo(void *device, memory *out);

static int failure(void) {
    return 6; /* NVML_ERROR_NOT_FOUND */
}

int nvmlInit_v2(void) {
    const char *text = getenv("LOWBEAM_FAKE_GPUS");
    return text && lb_plan_vram_parse(text, bytes, &n_cards, NULL) == LB_STATUS_OK ? 0 : failure();
}

int nvmlDeviceGetCount_v2(unsigned *n) {
    *n = (unsigned)n_cards;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(uintptr_t)(index + 1);
    return index < (unsigned)n_cards ? 0 : failure();
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    (void)uuid, (void)device;
    return failure();
}

int nvmlDeviceGetMemoryInfo(void *device, memory *out) {
    const size_t total = bytes[(uintptr_t)device - 1];
    *out = (memory){total, total, 0};
    return 0;
}
