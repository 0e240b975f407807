/* Where a question's video lies, and the names of the folders that --dump makes. */
#ifndef LB_RUN_PATHS_H
#define LB_RUN_PATHS_H

#include "dataset/dataset.h"
#include "lowbeam/status.h"

#include <stdbool.h>

/* base + video_path as one path; the caller frees *path. Refuses (REFUSED) what leaves base: an absolute path, "..", a
 * symbolic link that leads outside; unless allow_outside. Errors: REFUSED, NOT_FOUND, IO; all name video_path. */
lb_status lb_video_path(const char *base, const char *video_path, bool allow_outside, char **path, lb_error *error);

/* Folders below dir, one for each video (group) and each question, by design.md's rule: bytes outside [A-Za-z0-9._-] as
 * '_', the later of two equal names with -2, -3. video: [n_groups], question: [n_questions]; freed with the call below.
 */
typedef struct lb_dump_names {
    char **video, **question;
    size_t n_videos, n_questions;
} lb_dump_names;
lb_status lb_dump_names_make(const char *dir, const lb_dataset *dataset, lb_dump_names *names, lb_error *error);
void lb_dump_names_free(lb_dump_names *names);

#endif
