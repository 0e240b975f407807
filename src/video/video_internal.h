/* The two readers behind lb_frames_read, and the memory that both fill. Private to src/video. */
#ifndef LB_VIDEO_INTERNAL_H
#define LB_VIDEO_INTERNAL_H

#include "video/video.h"

/* The descriptor of path when it is a regular file. FIFOs, sockets and devices are refused without waiting for them.
 * The caller closes. Errors: NOT_FOUND, IO, REFUSED, FORMAT (empty). Messages carry no path: lb_frames_read adds it. */
lb_status lb_video_open(const char *path, int *fd, lb_error *error);

/* An empty lb_frames with room for n_frames indices and times, and a memfd without size. */
lb_status lb_frames_new(int n_frames, lb_frames **frames, lb_error *error);

/* Gives the memfd its final size for width x height, seals it and maps it (writable: PROT_WRITE too).
 * Errors: OUT_OF_MEMORY (above max_bytes, or the system has none), those of params->admit. */
lb_status lb_frames_map(lb_frames *frames, int width, int height, const lb_frames_params *params, bool writable,
                        lb_error *error);

/* Leaves those frames alone whose pixels are there: [n_frames]. The memory keeps its size. Errors: OUT_OF_MEMORY. */
lb_status lb_frames_keep(lb_frames *frames, const bool *there, lb_error *error);

/* From a video file by lowbeam-decode. fd: the open file; frames as lb_frames_new made it. */
lb_status lb_decoder_run(int fd, const char *path, const lb_frames_params *params, lb_frames *frames, lb_error *error);

/* From a folder of PNG and JPEG files, or from one such file. */
lb_status lb_pictures_read(const char *path, bool is_folder, const lb_frames_params *params, lb_frames *frames,
                           lb_error *error);

#endif
