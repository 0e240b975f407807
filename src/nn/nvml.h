/* Bytes in use on an NVIDIA card, as the driver's management library counts them: contexts of all processes included,
 * and without making one. The library is looked for at run time; without it, and for other devices, nothing is known.
 */
#ifndef LB_NN_NVML_H
#define LB_NN_NVML_H

#include <stdbool.h>
#include <stddef.h>

/* Total, free and used bytes. index: of the card among those that this process was given (CUDA_VISIBLE_DEVICES as it
 * was at the first call, where it lists numbers or UUIDs). false: not known. */
typedef struct lb_nvml_memory {
    size_t total, free, used;
} lb_nvml_memory;
bool lb_nvml_read(int index, lb_nvml_memory *memory);

/* Cards that this process was given; whether NVML and CUDA know them all is another matter. Where no
 * list says it, 0 without the library. */
int lb_nvml_count(void);

/* The card's entry in CUDA_VISIBLE_DEVICES; its number where there is no such list. false: the list is shorter. */
bool lb_nvml_entry(int index, char *entry, size_t n);

/* The index of a device that ggml calls "CUDA<index>"; -1 for others. */
int lb_nvml_index(const char *device_name);

#endif
