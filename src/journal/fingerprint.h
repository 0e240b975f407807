/* What tells whether a file is still the same: its size and time at once, its SHA-256 when somebody has read it.
 *
 *     lb_fingerprint f;
 *     lb_fingerprint_content("videos/a.mp4", NULL, &f, &error);       // reads it all
 *
 * Hashes of large files are kept in the cache folder ($LOWBEAM_CACHE, $XDG_CACHE_HOME/lowbeam or ~/.cache/lowbeam), in
 * a file `hashes` of lines "sha256 bytes mtime_ns ctime_ns path": a 16 GB model is read once, not at every run.
 */
#ifndef LB_JOURNAL_FINGERPRINT_H
#define LB_JOURNAL_FINGERPRINT_H

#include "base/sha256.h"
#include "lowbeam/status.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct lb_fingerprint {
    int64_t n_bytes;            /* of a folder: of its pictures together */
    int64_t mtime_ns, ctime_ns; /* of a folder: the latest of them and of itself */
    char sha256[LB_SHA256_HEX]; /* "" when not known (yet) */
} lb_fingerprint;

/* path: a file, or a folder of pictures (the PNG and JPEG files that a video of pictures consists of: their names,
 * sizes and contents, in the byte order of the names). Errors: NOT_FOUND, IO, REFUSED (neither file nor folder),
 * OUT_OF_MEMORY; each names the path. */

/* Size and time alone; sha256 is "". */
lb_status lb_fingerprint_look(const char *path, lb_fingerprint *fingerprint, lb_error *error);

/* With the hash. When *cancel becomes true: INTERRUPTED. NULL: never. */
lb_status lb_fingerprint_content(const char *path, const atomic_bool *cancel, lb_fingerprint *fingerprint,
                                 lb_error *error);

/* Same size and time: most likely the same file, or a copy of it. */
bool lb_fingerprint_same_look(const lb_fingerprint *a, const lb_fingerprint *b);

/* And nobody has touched it since: ctime cannot be set back. False for a copy. */
bool lb_fingerprint_untouched(const lb_fingerprint *a, const lb_fingerprint *b);

/* Fills in sha256 from the cache folder where path, size and times are those of before; false: not there. */
bool lb_fingerprint_recall(const char *path, lb_fingerprint *fingerprint);

/* Keeps it there. What goes wrong is of no account: the file is read again next time. */
void lb_fingerprint_remember(const char *path, const lb_fingerprint *fingerprint);

#endif
