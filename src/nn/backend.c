#include "nn/backend.h"

#include "base/error.h"
#include "nn/log.h"

#include <unistd.h>

lb_status lb_backend_open(const lb_device *device, int n_threads, ggml_backend_t *backend, lb_error *error) {
    *backend = ggml_backend_dev_init(device->handle, NULL);
    if (!*backend)
        return lb_error_set(error, LB_STATUS_BACKEND, "%s cannot be used: %s", device->name, lb_nn_last_log_error());
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device->handle);
    ggml_backend_set_n_threads_t set =
        (ggml_backend_set_n_threads_t)ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set) /* the CPU's alone has it */
        set(*backend, n_threads > 0 ? n_threads : (int)sysconf(_SC_NPROCESSORS_ONLN));
    return LB_STATUS_OK;
}
