/* Host memory that may be taken: for the default of --cache. */
#ifndef LB_MEMORY_HOST_H
#define LB_MEMORY_HOST_H

#include <stddef.h>

/* What the system says is available, less where a control group leaves less; 0: it does not say. */
size_t lb_host_available(void);

/* A quarter of that, 8 GiB at most and 256 MiB at least. */
size_t lb_host_default_cache(void);

#endif
