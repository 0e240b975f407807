/* NumPy's .npy files (format 1.0, C order) and texts: what --dump writes. */
#ifndef LB_RUN_NPY_H
#define LB_RUN_NPY_H

#include "lowbeam/status.h"

#include <stddef.h>
#include <stdint.h>

/* type: NumPy's name: "<f4", "<i4", "<i8", "|u1". shape: [n_dims], slowest first. Errors: IO, naming the path. */
lb_status lb_npy_write(const char *folder, const char *name, const char *type, int n_dims, const int64_t *shape,
                       const void *data, lb_error *error);

/* The same for data that lies in shape[0] parts of equal size, one an entry of the slowest axis. */
lb_status lb_npy_write_parts(const char *folder, const char *name, const char *type, int n_dims, const int64_t *shape,
                             const void *const *part, lb_error *error);

lb_status lb_text_write(const char *folder, const char *name, const char *text, size_t n, lb_error *error);

/* name with every byte outside [A-Za-z0-9._-] as '_', into out (cut to n - 1). */
void lb_name_clean(const char *name, char *out, size_t n);

#endif
