/* What lowbeam and lowbeam-decode say to each other, over one SOCK_SEQPACKET socket: a message is one struct, sent
 * whole.
 *
 *     lowbeam                               lowbeam-decode (descriptors 3, 4, 5; nothing else is open)
 *     lb_decode_request              ->
 *                                    <-     PROGRESS ... HEADER: size, rate, frames in the video
 *     lb_decode_go: which frames     ->     (the memory has its size by now and is sealed against changing it)
 *                                    <-     PROGRESS ... FRAME for each slot, its pixels lie in the memory ... DONE
 *
 * At any time instead: ERROR, the last message. The decoder reads files that come from strangers, so lowbeam believes
 * nothing of what it says: each field is checked in client.c. Both ends are built from one tree, hence no versions
 * side by side: another version is refused.
 */
#ifndef LB_VIDEO_PROTOCOL_H
#define LB_VIDEO_PROTOCOL_H

#include <stdint.h>

#define LB_DECODE_MAGIC   0x6c62u /* "lb" */
#define LB_DECODE_VERSION 3u

enum {
    LB_DECODE_FD_SOCKET = 3, /* this protocol */
    LB_DECODE_FD_FILE = 4,   /* the video, a regular file, read only */
    LB_DECODE_FD_FRAMES = 5, /* memfd of the frames, [slot][height][width][3] */
    LB_DECODE_FD_END = 6,
    LB_DECODE_FRAMES_MAX = 1024,
};

/* A frame's longest side and its pixels: above, a file is refused as broken before memory is taken for it. */
#define LB_DECODE_SIDE_MAX   16384
#define LB_DECODE_PIXELS_MAX (1 << 26)

/* More packets than this is no video that anybody recorded (at 60 a second, 12 days). */
#define LB_DECODE_PACKETS_MAX (1 << 26)

typedef struct lb_decode_request {
    uint32_t magic, version;
    int32_t parent_pid; /* when it is not the parent any more, the decoder ends */
    int32_t threads;
    int32_t cpu_s; /* RLIMIT_CPU */
    /* RLIMIT_AS until HEADER, and what it may be raised to; lowbeam raises it by what the frames need. */
    uint64_t address_space_bytes, address_space_max_bytes;
    char extension[16]; /* of the file's name, without the dot, lower case: a hint for raw streams */
} lb_decode_request;

typedef enum lb_decode_kind {
    LB_DECODE_PROGRESS = 1,
    LB_DECODE_HEADER,
    LB_DECODE_FRAME,
    LB_DECODE_DONE,
    LB_DECODE_ERROR,
} lb_decode_kind;

typedef struct lb_decode_reply {
    uint32_t magic, version;
    int32_t kind;
    int32_t status;        /* ERROR: an lb_status */
    int32_t width, height; /* HEADER */
    int32_t slot;          /* FRAME: position in lb_decode_go.index */
    int32_t filter_errno;  /* HEADER: why the kernel took no system call filter; 0: it did */
    int64_t n_total;       /* HEADER */
    double fps;            /* HEADER: 0 when unknown */
    double time_s;         /* FRAME */
    char message[512];     /* ERROR: cause, without the path */
} lb_decode_reply;

typedef struct lb_decode_go {
    uint32_t magic, version;
    int32_t n_frames; /* entries of index; only these are sent */
    double limit_s;   /* > 0: slots are left out (thin.h) so that it takes no longer; the first one never is */
    int64_t index[LB_DECODE_FRAMES_MAX];
} lb_decode_go;

#endif
