/* From a video path to N RGB frames with their indices and times.
 *
 * Takes: a video file (decoded by the separate program lowbeam-decode, the only one that links FFmpeg) or a folder of
 * PNG/JPEG files (read here, in the byte order of their names; files without such an ending and hidden ones are passed
 * over; one such file alone is a video of one frame). Gives: frames in shared memory.
 *
 *     lb_frames_params params = lb_frames_default_params();
 *     params.n_frames = 8;
 *     lb_frames *frames;
 *     if (lb_frames_read("clip.mp4", &params, &frames, &error) == LB_STATUS_OK)
 *         use(lb_frames_view(frames, 0), frames->index[0], frames->time_s[0]);
 *     lb_frames_free(frames);
 */
#ifndef LB_VIDEO_VIDEO_H
#define LB_VIDEO_VIDEO_H

#include "image/image.h"
#include "lowbeam/status.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct lb_frames_params {
    int n_frames;              /* how many, uniformly spread; default 8, at most 1024 */
    bool bounded;              /* take them from [from_s, to_s] only; default false */
    double from_s, to_s;       /* seconds; from_s may be -inf and to_s +inf when only one bound is given */
    double timeout_s;          /* wall time that the decoder may take for one frame, and that it may be silent; for
                                  counting the frames, so long and a second for each MiB of the file; default 20 */
    double cpu_s;              /* processor time of all its threads that it may take for one video; default 0: 1800, or
                                  timeout_s for each thread where that is more */
    size_t decoder_bytes;      /* of address space that the decoder may take beside the frames; default 4 GiB */
    size_t max_bytes;          /* of decoded frames together; default 4 GiB */
    double enough_s;           /* wall time after which what has been read is enough: frames are left out so that it
                                  takes no longer (spread evenly; one is read in any case); default 0: all are read */
    double image_fps;          /* rate that a folder of pictures is taken to have; default 1 */
    const char *decoder_path;  /* the lowbeam-decode program; NULL: $LOWBEAM_DECODE, else beside the running program,
                                  else in PATH */
    bool header_only;          /* lb_frames_probe sets it */
    const atomic_bool *cancel; /* when it becomes true the decoder is killed, LB_STATUS_INTERRUPTED; NULL: never */
    /* Called once, when the frames' size is known and before their memory is taken; may wait. Not OK: they are not
     * read. NULL: they always are. */
    lb_status (*admit)(int width, int height, void *user, lb_error *error);
    void *user;
} lb_frames_params;

lb_frames_params lb_frames_default_params(void);

typedef struct lb_frames {
    int n_frames, width, height; /* n_frames: fewer than asked only because of enough_s; all frames of one video have
                                    one size, rotation applied */
    int64_t n_total;             /* frames in the video (as decord's len()), or pictures in the folder */
    double fps;                  /* average rate, as decord's get_avg_fps(); 0 when unknown */
    const uint8_t *data;         /* [n_frames][height][width][3] RGB; read only */
    size_t data_bytes;
    int fd;               /* memfd behind data (offset 0), to be sent to another process; owned by this */
    int64_t *index;       /* [n_frames] which frame of the video, may repeat */
    double *time_s;       /* [n_frames] presentation time from the start of the video */
    double decode_time_s; /* wall time that reading took */
} lb_frames;

/* The frame indices that the reference takes, see design.md: n_total frames, fps needed when bounded only.
 * index: [n_frames]. Errors: INVALID_ARGUMENT (n_total or n_frames below 1, an empty bound). */
lb_status lb_frame_indices(int64_t n_total, double fps, const lb_frames_params *params, int64_t *index,
                           lb_error *error);

/* Errors, each with the path in front and one cause: NOT_FOUND, IO, FORMAT (not a video, truncated, no video stream),
 * UNSUPPORTED (codec), REFUSED (a FIFO, socket or device), TIMEOUT (no progress), OUT_OF_MEMORY (above max_bytes, too),
 * CHILD_DIED (the decoder crashed: the signal's name), INTERRUPTED; INVALID_ARGUMENT as lb_frame_indices.
 * Frame i is decord 0.6.0's frame i, sorted by presentation time. A number whose frame is damaged or hidden by an edit
 * list gets the next one shown, past the last one the last. Several threads may read at once. */
lb_status lb_frames_read(const char *path, const lb_frames_params *params, lb_frames **frames, lb_error *error);

/* Whether a file of that name is taken for a picture, by its ending. */
bool lb_pictures_is_name(const char *name);

/* Size, rate and length alone, as the file's header tells them: no frame is decoded, data stays NULL and the indices
 * are those that lb_frames_read would take. Of a folder of pictures the first is read. Errors: as above. */
lb_status lb_frames_probe(const char *path, const lb_frames_params *params, lb_frames **frames, lb_error *error);

lb_image_view lb_frames_view(const lb_frames *frames, int i);
void lb_frames_free(lb_frames *frames);

#endif
