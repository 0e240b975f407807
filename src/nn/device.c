#include "nn/device.h"

#include "base/error.h"
#include "nn/log.h"

#include <ggml-backend.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void start_once(void) {
    lb_nn_log_start();
    /* Backends built as plugins; those linked in are there already, the CPU's among them. Not in any case, because ggml
     * looks for plugins in the current folder, too, which may be a stranger's. */
    if (!ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU))
        ggml_backend_load_all();
}

lb_status lb_device_find(const char *name, lb_device *device, lb_error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_once);
    *device = (lb_device){0};
    bool automatic = !name || !*name || strcasecmp(name, "auto") == 0;
    ggml_backend_dev_t found = NULL;
    char names[512] = "";
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        const char *dev_name = ggml_backend_dev_name(dev);
        enum ggml_backend_dev_type type = ggml_backend_dev_type(dev);
        if (type == GGML_BACKEND_DEVICE_TYPE_ACCEL)
            continue;
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", dev_name);
        bool gpu = type == GGML_BACKEND_DEVICE_TYPE_GPU;
        if (!found && (automatic ? gpu : strcasecmp(name, dev_name) == 0))
            found = dev;
    }
    if (!found && automatic)
        found = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!found)
        return lb_error_set(error, LB_STATUS_NOT_FOUND, "--device %s: there is no such device; there are: %s",
                            name ? name : "auto", names[0] ? names : "none");
    device->handle = found;
    device->is_cpu = ggml_backend_dev_type(found) == GGML_BACKEND_DEVICE_TYPE_CPU;
    snprintf(device->name, sizeof device->name, "%s", ggml_backend_dev_name(found));
    snprintf(device->description, sizeof device->description, "%s", ggml_backend_dev_description(found));
    ggml_backend_dev_memory(found, &device->free_bytes, &device->total_bytes);
    return LB_STATUS_OK;
}

size_t lb_device_reserved_bytes(const lb_device *device) {
    if (!device->is_cpu) {
        size_t free_bytes = 0, total = 0;
        ggml_backend_dev_memory(device->handle, &free_bytes, &total);
        /* the CUDA context exists from the first call on: what is used now is what was found free, less what is */
        return device->free_bytes > free_bytes ? device->free_bytes - free_bytes : 0;
    }
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm)
        return 0;
    unsigned long long size = 0, resident = 0;
    int n = fscanf(statm, "%llu %llu", &size, &resident);
    fclose(statm);
    return n == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}
