/* A small file read whole: questions, templates; and folders.
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

#include <stdbool.h>
#include <stddef.h>

/* Reads path (a file, pipe or the like) to its end. bytes: [*n] and a NUL after them that *n does not count; free() it.
 * Errors: NOT_FOUND, IO, REFUSED (a folder; more than max_bytes), OUT_OF_MEMORY; *bytes is NULL then. */
lb_status lb_file_read(const char *path, size_t max_bytes, char **bytes, size_t *n, lb_error *error);

/* Makes a folder and those above it, where they are missing. Errors: IO, naming the path. */
lb_status lb_folder_make(const char *folder, lb_error *error);

/* The user's folder for what lowbeam keeps: $LOWBEAM_CACHE, $XDG_CACHE_HOME/lowbeam or ~/.cache/lowbeam, into path [n].
 * It may be missing. false: the environment names none, or one that has no room in path. */
bool lb_user_cache(char *path, size_t n);

#endif
