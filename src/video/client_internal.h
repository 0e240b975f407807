/* One running lowbeam-decode, as the two halves of its client see it. Private to src/video. */
#ifndef LB_VIDEO_CLIENT_INTERNAL_H
#define LB_VIDEO_CLIENT_INTERNAL_H

#include "video/protocol.h"
#include "video/video_internal.h"

#include <limits.h>
#include <sys/types.h>

typedef struct lb_decoder {
    pid_t pid; /* also its process group; 0: none */
    int socket;
    int64_t file_bytes;               /* of the video */
    int32_t cpu_s;                    /* what it was allowed */
    double start_s;                   /* when reading began, as lb_now_s */
    bool there[LB_DECODE_FRAMES_MAX]; /* which slots have their pixels */
    char program[PATH_MAX];
} lb_decoder;

/* client.c: ends a decoder whose end of the socket was closed before DONE, and says what became of it. */
lb_status lb_decoder_died(lb_decoder *d, lb_error *error);

/* client_talk.c: asks for the frames of the open video and waits for them. path: for its ending. */
lb_status lb_decoder_converse(lb_decoder *d, const char *path, const lb_frames_params *params, lb_frames *frames,
                              lb_error *error);

#endif
