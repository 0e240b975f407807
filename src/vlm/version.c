#include "vlm/vlm.h"

#include <ggml.h>
#include <llama.h>
#include <stdio.h>

const char *lb_vlm_library(void) {
    static char text[128]; /* the same each time: two threads that write it do no harm */
    snprintf(text, sizeof text, "llama.cpp %s, ggml %s (%s)", llama_version(), ggml_version(), ggml_commit());
    return text;
}
