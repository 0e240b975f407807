/* What the libFuzzer entries share: bytes as a file with a name, a part of the input taken off its front. */
#ifndef LB_FUZZ_FUZZ_H
#define LB_FUZZ_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that holds whatever the input is. */
#define LB_FUZZ_ASSERT(condition)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { LB_FUZZ_PATH_BYTES = 64 };

/* A memfd of these bytes, which path then names; the caller closes it. */
static inline int lb_fuzz_file(const uint8_t *data, size_t size, char path[LB_FUZZ_PATH_BYTES]) {
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    LB_FUZZ_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, LB_FUZZ_PATH_BYTES, "/proc/self/fd/%d", fd);
    return fd;
}

/* Up to the next byte 0xff (which no UTF-8 holds) or the end, as a text that the caller frees; *data moves past it. */
static inline char *lb_fuzz_text(const uint8_t **data, size_t *size) {
    size_t n = 0;
    while (n < *size && (*data)[n] != 0xff)
        n++;
    char *text = malloc(n + 1);
    LB_FUZZ_ASSERT(text);
    memcpy(text, *data, n);
    text[n] = 0;
    const size_t past = n < *size ? n + 1 : n;
    *data += past;
    *size -= past;
    return text;
}

#endif
