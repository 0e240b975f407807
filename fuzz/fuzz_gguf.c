/* libFuzzer entry: any bytes as a detector's GGUF file: its header, settings, vocabulary, and every
 * tensor's bytes.
 * sources: src/nn/gguf_file.c src/nn/log.c src/image/resize*.c src/detector/preprocess.c src/detector/hparams.c
 * sources: src/detector/wordpiece.c src/detector/wordpiece_words.c
 */
#include "detector/model_internal.h"
#include "detector/preprocess.h"
#include "detector/wordpiece.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    char path[64];
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    lb_gguf *file;
    lb_error error = {0};
    if (lb_gguf_open(path, &file, &error) == LB_STATUS_OK) {
        static lb_gdino_hparams hparams;
        lb_preprocess_params preprocess;
        lb_wordpiece *tokenizer;
        (void)lb_gdino_read_hparams(file, &hparams, &error);
        (void)lb_preprocess_read(file, &preprocess, &error);
        if (lb_wordpiece_from_gguf(file, &tokenizer, &error) == LB_STATUS_OK)
            lb_wordpiece_free(tokenizer);
        uint8_t sum = 0;
        for (size_t i = 0; i < lb_gguf_n_tensors(file); i++) {
            lb_gguf_tensor t;
            lb_gguf_tensor_at(file, i, &t);
            for (size_t k = 0; k < t.n_bytes; k++)
                sum ^= ((const uint8_t *)t.data)[k];
        }
        (void)(*(volatile uint8_t *)&sum);
        lb_gguf_close(file);
    }
    close(fd);
    return 0;
}
