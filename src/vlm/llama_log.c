#include "vlm/llama_log.h"

#include "nn/device.h"
#include "nn/log.h"

#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lb_llama_sizes sizes;
static char device[64];

static void log_line(enum ggml_log_level level, const char *text, void *user) {
    lb_nn_route_log((int)level, text, user);
}

void lb_llama_log_route(void) {
    llama_log_set(log_line, NULL);
}

/* "load_tensors:        CUDA0 model buffer size = 13486.77 MiB", "llama_kv_cache:  CUDA0 KV buffer size = 1288.00 MiB",
 * "sched_reserve:  CUDA0 compute buffer size =   304.00 MiB" */
static void read_line(const char *line, void *user) {
    (void)user;
    static const char *const what[] = {" model buffer size", " KV buffer size", " compute buffer size"};
    size_t *const into[] = {&sizes.weights, &sizes.kv, &sizes.compute};
    const char *colon = strchr(line, ':');
    for (int i = 0; colon && i < 3; i++) {
        const char *at = strstr(colon, what[i]), *equals = at ? strchr(at, '=') : NULL;
        if (!equals)
            continue;
        const char *name = colon + 1;
        while (*name == ' ')
            name++;
        size_t length = (size_t)(at - name);
        /* the device's own buffers ("CUDA0", "CPU") and the kinds of it ("CPU_Mapped", "CPU_REPACK") */
        size_t n = strlen(device);
        if (length >= n && strncmp(name, device, n) == 0 && (name[n] == ' ' || name[n] == '_'))
            *into[i] += (size_t)(strtod(equals + 1, NULL) * 1048576.0);
    }
}

void lb_llama_sizes_begin(const char *device_name) {
    sizes = (lb_llama_sizes){0};
    snprintf(device, sizeof device, "%s", device_name);
    lb_nn_log_tap(read_line, NULL);
}

lb_llama_sizes lb_llama_sizes_end(void) {
    lb_nn_log_tap(NULL, NULL);
    return sizes;
}
