/* A small file read whole: questions, templates.
 *
 *     char *bytes;
 *     size_t n;
 *     if (lb_file_read("questions.json", (size_t)1 << 30, &bytes, &n, error) != LB_STATUS_OK) return error->status;
 *     ...
 *     free(bytes);
 */
#ifndef LB_BASE_FILE_H
#define LB_BASE_FILE_H

#include "lowbeam/status.h"

#include <stddef.h>

/* Reads path (a file, pipe or the like) to its end. bytes: [*n] and a NUL after them that *n does not count; free() it.
 * Errors: NOT_FOUND, IO, REFUSED (a folder; more than max_bytes), OUT_OF_MEMORY; *bytes is NULL then. */
lb_status lb_file_read(const char *path, size_t max_bytes, char **bytes, size_t *n, lb_error *error);

#endif
