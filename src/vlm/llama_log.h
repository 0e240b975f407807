/* libllama's log into lb_log, and its buffer sizes read back from it: the C API has no call that gives them. */
#ifndef LB_VLM_LLAMA_LOG_H
#define LB_VLM_LLAMA_LOG_H

#include "memory/ledger.h"

void lb_llama_log_route(void); /* once is enough; more often is allowed */

/* What the lines "<function>: <device> ... buffer size = <MiB>" between begin and end added up to, in bytes: for each
 * named device, and last for everything on the host beside them (pinned memory, the CPU's own). Where the first device
 * is the CPU itself, all of it is the device's. One reader at a time; names must stay until the end. */
typedef struct lb_llama_sizes {
    size_t weights, kv, compute;
} lb_llama_sizes;
void lb_llama_sizes_begin(const char *const *device_names, int n);
void lb_llama_sizes_end(lb_llama_sizes *sizes); /* [n + 1] */

#endif
