/* libFuzzer entry: any bytes as a safetensors file end in an error or in tensors that can be read whole.
 * make fuzz builds and runs it (clang only); fuzz/corpus/safetensors holds what it found worth keeping.
 * sources: src/detector/safetensors.c */
#include "detector/safetensors.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    lb_safetensors *file;
    lb_error error = {0};
    if (lb_safetensors_open_bytes("fuzz", data, size, &file, &error) != LB_STATUS_OK) {
        if (!error.message[0] || file)
            abort();
        return 0;
    }
    for (size_t i = 0; i < lb_safetensors_n(file); i++) {
        const lb_safetensors_tensor *t = lb_safetensors_at(file, i);
        if (lb_safetensors_find(file, t->name) != t)
            abort();
        for (int64_t first = 0; first < t->n_elements; first += 64) {
            float out[64];
            int64_t n = t->n_elements - first < 64 ? t->n_elements - first : 64;
            if (lb_safetensors_f32(t, first, n, out, NULL) != LB_STATUS_OK)
                break;
        }
    }
    lb_safetensors_close(file);
    return 0;
}
