#include "nn/pinned.h"

#include "base/error.h"
#include "memory/ledger.h"

#include <ggml-backend.h>

lb_status lb_pinned_alloc(const lb_device *device, size_t bytes, int component, lb_pinned *pinned, lb_error *error) {
    *pinned = (lb_pinned){0};
    ggml_backend_buffer_type_t type = ggml_backend_dev_host_buffer_type(device->handle);
    if (!type)
        type = ggml_backend_dev_buffer_type(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(type, bytes ? bytes : 1);
    if (!buffer)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no %.1f MiB of host memory for %s",
                            (double)bytes / (1 << 20), lb_component_text((lb_component)component));
    *pinned = (lb_pinned){ggml_backend_buffer_get_base(buffer), bytes, buffer, component};
    lb_ledger_add((lb_component)component, bytes);
    return LB_STATUS_OK;
}

void lb_pinned_free(lb_pinned *pinned) {
    if (pinned->buffer) {
        lb_ledger_sub((lb_component)pinned->component, pinned->bytes);
        ggml_backend_buffer_free(pinned->buffer);
    }
    *pinned = (lb_pinned){0};
}
