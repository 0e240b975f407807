/* What the models saw of a video, as bytes that another process, or a later one, takes up: detections, tiles and
 * embeddings. The layout is this machine's; the program's version is in an entry's name.
 *
 *     int fd;
 *     lb_sight_write(&sight, n_frames, n_embd, &fd, &bytes, &error);     // into shared memory
 *     ...
 *     lb_sight_read(vlm, data, n, n_frames, &sight, &error);             // data must outlive it: the rows stay there
 */
#ifndef LB_RUN_SIGHT_H
#define LB_RUN_SIGHT_H

#include "run/findings.h"
#include "vlm/vlm.h"

/* A video as the models see it; what its questions share. */
typedef struct lb_sight {
    lb_findings findings; /* n_frames 0: no detector */
    int *tiles_per_frame; /* [n_frames] crops included */
    int n_tiles;
    lb_embeddings *pictures; /* NULL: not encoded */
    double detect_s, encode_s;
} lb_sight;

void lb_sight_free(lb_sight *sight); /* zeroes it */

/* fd: a memfd, the caller's. Errors: OUT_OF_MEMORY. */
lb_status lb_sight_write(const lb_sight *sight, int n_frames, int n_embd, int *fd, size_t *bytes, lb_error *error);

/* data: aligned to 64. Errors: FORMAT (another length or shape than this model's), OUT_OF_MEMORY; sight is zero then.
 */
lb_status lb_sight_read(lb_vlm *vlm, const void *data, size_t n, int n_frames, lb_sight *sight, lb_error *error);

#endif
