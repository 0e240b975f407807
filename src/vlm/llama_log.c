#include "vlm/llama_log.h"

#include "nn/device.h"
#include "nn/log.h"

#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lb_llama_sizes sizes[LB_DEVICES_MAX + 1];
static const char *device[LB_DEVICES_MAX];
static int n_devices;

static void log_line(enum ggml_log_level level, const char *text, void *user) {
    lb_nn_route_log((int)level, text, user);
}

void lb_llama_log_route(void) {
    llama_log_set(log_line, NULL);
}

/* Which device a buffer's name belongs to: its own ("CUDA0", "CPU") or a kind of it ("CPU_Mapped", "CPU_REPACK"); the
 * host when none. */
static int owner_of(const char *name) {
    for (int i = 0; i < n_devices; i++) {
        size_t n = strlen(device[i]);
        if (strncmp(name, device[i], n) == 0 && (name[n] == ' ' || name[n] == '_'))
            return i;
    }
    return n_devices;
}

/* "load_tensors:        CUDA0 model buffer size = 13486.77 MiB", "llama_kv_cache:  CUDA0 KV buffer size = 1288.00 MiB",
 * "sched_reserve:  CUDA0 compute buffer size =   304.00 MiB" */
static void read_line(const char *line, void *user) {
    (void)user;
    static const char *const what[] = {" model buffer size", " KV buffer size", " compute buffer size"};
    const char *colon = strchr(line, ':');
    for (int i = 0; colon && i < 3; i++) {
        const char *at = strstr(colon, what[i]), *equals = at ? strchr(at, '=') : NULL;
        if (!equals)
            continue;
        const char *name = colon + 1;
        while (*name == ' ')
            name++;
        if (name >= at)
            continue;
        lb_llama_sizes *into = &sizes[owner_of(name)];
        size_t *const fields[] = {&into->weights, &into->kv, &into->compute};
        *fields[i] += (size_t)(strtod(equals + 1, NULL) * 1048576.0);
    }
}

void lb_llama_sizes_begin(const char *const *device_names, int n) {
    memset(sizes, 0, sizeof sizes);
    n_devices = n < LB_DEVICES_MAX ? n : LB_DEVICES_MAX;
    for (int i = 0; i < n_devices; i++)
        device[i] = device_names[i];
    lb_nn_log_tap(read_line, NULL);
}

void lb_llama_sizes_end(lb_llama_sizes *out) {
    lb_nn_log_tap(NULL, NULL);
    memcpy(out, sizes, (size_t)(n_devices + 1) * sizeof *out);
}
