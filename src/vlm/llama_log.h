/* libllama's log into lb_log, and its buffer sizes read back from it: the C API has no call that gives them. */
#ifndef LB_VLM_LLAMA_LOG_H
#define LB_VLM_LLAMA_LOG_H

#include <stddef.h>

void lb_llama_log_route(void); /* once is enough; more often is allowed */

/* What the lines "<function>: <device> ... buffer size = <MiB>" between begin and end added up to, in bytes, for the
 * device's buffers (weights on the host are left out when the device is a GPU). One reader at a time. */
typedef struct lb_llama_sizes {
    size_t weights, kv, compute;
} lb_llama_sizes;
void lb_llama_sizes_begin(const char *device_name);
lb_llama_sizes lb_llama_sizes_end(void);

#endif
