/* The program lowbeam-decode: the only one that links FFmpeg's libraries. It takes an open video and frame indices and
 * gives RGB pixels in shared memory (protocol.h). It links nothing else of lowbeam.
 *
 * Which frame is frame i: decord 0.6.0's answer. A video has as many frames as its stream has packets; sorted by
 * presentation time, frame i is the one that packet i decodes to.
 *
 * decode_main.c    the conversation
 * decode_confine.c limits, and a filter of system calls
 * decode_input.c   opening the file, choosing the stream, reading packets, moving to packet k
 * decode_index.c   all packets' times without decoding: presentation order, key packets
 * decode_frames.c  from which key packet to decode, matching frames with indices
 * decode_pixels.c  YUV to RGB as decord's filter graph does it; rotation
 */
#ifndef LB_VIDEO_DECODE_H
#define LB_VIDEO_DECODE_H

#include "lowbeam/status.h"
#include "video/protocol.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* decode_main.c ---------------------------------------------------------------------------------------------------- */

/* Sends ERROR with FFmpeg's last complaint after the text, and ends the program. There is nothing to tidy up: the
 * process is the unit of failure here. */
_Noreturn void lb_decode_fail(lb_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Call where work was done (a packet read, a frame decoded): tells lowbeam so, a few times a second. */
void lb_decode_progress(void);

void lb_decode_send_frame(int slot, double time_s);

/* FFmpeg's result code as text, good until the next call. */
const char *lb_decode_text(int averror);

/* decode_index.c --------------------------------------------------------------------------------------------------- */

typedef struct lb_packet_info {
    int64_t pts, dts, position; /* in the stream's time base; bytes, or -1 */
    bool is_key;
} lb_packet_info;

typedef struct lb_stream_index {
    lb_packet_info *packets; /* [n] in the file's (decoding) order */
    int32_t *by_time;        /* [n] presentation order: frame i is in packet by_time[i] */
    int n;
    /* Each packet has a time of its own. If not, frames are told apart by counting them from the start alone. */
    bool is_timed;
} lb_stream_index;

struct lb_input;
void lb_stream_index_build(struct lb_input *input, lb_stream_index *index);

/* Frame with this time, or -1. */
int lb_stream_index_find(const lb_stream_index *index, int64_t pts);

/* The key packet from which decoding forward shows `frame`, skipping the `back` last such ones; 0 when there is none.
 */
int lb_stream_index_key(const lb_stream_index *index, int frame, int back);

/* decode_input.c --------------------------------------------------------------------------------------------------- */

typedef struct lb_input {
    int fd;
    int64_t position, size;
    char extension[32];
    AVFormatContext *format;
    AVStream *stream;
    const AVCodec *codec;
    int read_error; /* why lb_input_read gave false; 0: the end */
    int next;       /* number, in decoding order, of the packet that lb_input_read gives next */
    AVPacket *peeked;
    bool has_peeked, no_seek;
} lb_input;

/* size: of the file, in bytes. */
void lb_input_open(lb_input *input, int fd, int64_t size, const char *extension);

/* The stream's next packet; false at the end, or where the file is broken. */
bool lb_input_read(lb_input *input, AVPacket *packet);

/* Makes packet number k the next one, by reading over the ones between or, where many bytes lie between, by seeking. */
void lb_input_move(lb_input *input, const lb_stream_index *index, int k);

double lb_input_fps(const lb_input *input, const lb_stream_index *index);

/* decode_pixels.c -------------------------------------------------------------------------------------------------- */

typedef struct lb_orientation {
    bool transposed; /* columns become rows, before the flips */
    bool flip_x, flip_y;
} lb_orientation;

typedef struct lb_pixels {
    int coded_width, coded_height; /* of the stream's first frame; frames of other sizes are scaled to it */
    int width, height;             /* turned upright */
    lb_orientation orientation;
    struct SwsContext *sws;
    AVFrame *rgb;
} lb_pixels;

void lb_pixels_init(lb_pixels *pixels, const AVStream *stream);

/* out: [height][width][3]. */
void lb_pixels_convert(lb_pixels *pixels, const AVFrame *frame, uint8_t *out);

/* decode_frames.c -------------------------------------------------------------------------------------------------- */

/* Decodes go->index into out, [slot][height][width][3], sending FRAME for each slot. */
void lb_frames_decode(lb_input *input, const lb_stream_index *index, lb_pixels *pixels, int threads,
                      const lb_decode_go *go, uint8_t *out);

#endif
