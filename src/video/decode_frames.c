#include "video/decode.h"

#include "base/time.h"
#include "video/thin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Decoding on costs as much as a flush and filling the decoder's pipeline again while the next key packet is no further
 * than this (a frame for each thread, and those that wait to be reordered). */
enum { WORTH_JUMPING = 8 };

/* Frames that are not wanted and to which no other refers are not decoded at all, unless a wanted one is shown within
 * this many after them: a decoder that has to learn how many frames wait to be reordered needs to see some. */
enum { SKIP_MARGIN = 16 };

/* A decoder that says the same error this often without taking a packet has come to its end. */
enum { ERRORS_MAX = 1000 };

typedef struct decoding {
    lb_input *input;
    const lb_stream_index *index;
    lb_pixels *pixels;
    const lb_decode_go *go;
    uint8_t *out;
    AVCodecContext *codec;
    AVPacket *packet;
    int32_t *number_of_packet; /* [n] packet, in decoding order, to frame */
    AVFrame *frame, *last;     /* last: the newest frame that came out, whatever its number */
    int slot;                  /* first one without pixels; go->index ascends */
    int run_start;             /* packet with which the decoder started afresh */
    int64_t run_outputs;       /* frames that came out since */
    int64_t n_decoded;         /* frames that came out in all */
    double start_s;
    bool is_timed;    /* index->is_timed, unless the decoder gives other times than the packets' */
    bool skips;       /* leaves out frames without which the wanted ones can be decoded */
    bool is_over;     /* the decoder is drained */
    bool trust_start; /* the run started at the file's first packet, or has shown frames from where it should */
} decoding;

static AVCodecContext *open_codec(const lb_input *input, int threads) {
    AVCodecContext *codec = avcodec_alloc_context3(input->codec);
    if (!codec || avcodec_parameters_to_context(codec, input->stream->codecpar) < 0)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for a decoder");
    codec->thread_count = threads;
    codec->max_pixels = LB_DECODE_PIXELS_MAX;
    codec->pkt_timebase = input->stream->time_base;
    const int code = avcodec_open2(codec, input->codec, NULL);
    if (code < 0)
        lb_decode_fail(code == AVERROR(ENOMEM)                                   ? LB_STATUS_OUT_OF_MEMORY
                       : code == AVERROR_PATCHWELCOME || code == AVERROR(ENOSYS) ? LB_STATUS_UNSUPPORTED
                                                                                 : LB_STATUS_FORMAT,
                       "the decoder for %s does not take this video: %s", avcodec_get_name(input->codec->id),
                       lb_decode_text(code));
    return codec;
}

static size_t frame_bytes(const decoding *d) {
    return 3 * (size_t)d->pixels->width * (size_t)d->pixels->height;
}

static double time_of(const decoding *d, int64_t frame) {
    const AVStream *stream = d->input->stream;
    const int64_t pts = d->index->packets[d->index->by_time[frame]].pts;
    if (!d->index->is_timed) {
        const double fps = lb_input_fps(d->input, d->index);
        return fps > 0 ? (double)frame / fps : 0;
    }
    const int64_t start =
        stream->start_time != AV_NOPTS_VALUE ? stream->start_time : d->index->packets[d->index->by_time[0]].pts;
    return ((double)pts - (double)start) * av_q2d(stream->time_base);
}

/* Gives this frame's pixels to the next slot and to all that follow with the same or a passed number. */
static void fill(decoding *d, const AVFrame *frame, int64_t number) {
    const int first = d->slot;
    while (d->slot < d->go->n_frames && d->go->index[d->slot] <= number) {
        uint8_t *to = d->out + (size_t)d->slot * frame_bytes(d);
        if (d->slot == first)
            lb_pixels_convert(d->pixels, frame, to);
        else
            memcpy(to, d->out + (size_t)first * frame_bytes(d), frame_bytes(d));
        lb_decode_send_frame(d->slot, time_of(d, d->go->index[d->slot]));
        d->slot++;
    }
}

/* Starts decoding at packet k. */
static void start_at(decoding *d, int k) {
    lb_input_move(d->input, d->index, k);
    avcodec_flush_buffers(d->codec);
    d->run_start = k;
    d->run_outputs = 0;
    d->is_over = false;
    d->trust_start = k == 0;
    av_frame_unref(d->last);
}

/* Number of a frame that came out; -1 when its time is none of the packets'. */
static int64_t number_of(decoding *d, const AVFrame *frame) {
    if (!d->is_timed)
        return d->run_outputs;
    /* decord takes best_effort_timestamp; it is pts wherever there is one. */
    const int number = lb_stream_index_find(d->index, frame->best_effort_timestamp);
    if (number < 0 && d->run_start == 0 && d->run_outputs == 0) {
        d->is_timed = d->skips = false; /* the decoder makes up times of its own: count */
        return 0;
    }
    return number;
}

/* Takes one frame that came out. False: this run did not start where it should have, it must start further back. */
static bool take(decoding *d) {
    const int64_t number = number_of(d, d->frame), wanted = d->go->index[d->slot];
    if (!d->trust_start) {
        const bool is_damaged = d->frame->decode_error_flags || (d->frame->flags & AV_FRAME_FLAG_CORRUPT);
        if (number < 0 || number > wanted || (is_damaged && number == wanted))
            return false;
        d->trust_start = !is_damaged;
    }
    if (d->skips && number > wanted) {
        d->skips = false; /* perhaps the one to come was held to be out of order for the gap before it */
        return false;
    }
    d->run_outputs++;
    if (number >= wanted)
        fill(d, d->frame, number);
    av_frame_unref(d->last);
    av_frame_move_ref(d->last, d->frame);
    return true;
}

/* What of the next packet, number k in decoding order, can be left undecoded. Only codecs whose non-reference frames
 * are so by definition: in HEVC a frame marked so may still be one for a higher temporal layer. */
static enum AVDiscard discard_for(const decoding *d, int k) {
    const int64_t number = d->skips ? d->number_of_packet[k] : -1;
    if (number < 0 || number + SKIP_MARGIN >= d->go->index[d->slot])
        return AVDISCARD_DEFAULT;
    return AVDISCARD_NONREF;
}

/* Hands the decoder its next packet, or the end. A damaged packet is refused: the next ones may be whole. */
static void feed(decoding *d) {
    const bool is_there = lb_input_read(d->input, d->packet) && d->input->next <= d->index->n;
    if (is_there)
        d->codec->skip_frame = discard_for(d, d->input->next - 1);
    avcodec_send_packet(d->codec, is_there ? d->packet : NULL);
    av_packet_unref(d->packet);
}

/* Decodes until the next wanted frame is there, or the end. False: start further back. */
static bool advance(decoding *d) {
    const int slot = d->slot;
    int errors = 0;
    while (d->slot == slot) {
        const int code = avcodec_receive_frame(d->codec, d->frame);
        if (code == 0) {
            errors = 0;
            d->n_decoded++;
            lb_decode_progress();
            if (!take(d))
                return false;
        } else if (code == AVERROR(EAGAIN)) {
            feed(d);
        } else if (code == AVERROR_EOF || ++errors > ERRORS_MAX) {
            d->is_over = true;
            return true;
        }
    }
    return true;
}

/* What the file's end leaves: numbers past the last frame that can be decoded get that frame, as from decord. */
static void fill_rest(decoding *d) {
    if (d->last->buf[0])
        fill(d, d->last, INT64_MAX);
    else
        lb_decode_fail(LB_STATUS_FORMAT, "none of the video's %d frames can be decoded", d->index->n);
}

/* Frames that are decoded for it: from the one before, or from a key packet between. */
static double cost_of(int from, int to, void *user) {
    const decoding *d = user;
    const int64_t here = d->go->index[from], there = d->go->index[to];
    const int key = d->is_timed ? lb_stream_index_key(d->index, (int)there, 0) : 0;
    const int64_t start = key > 0 ? d->number_of_packet[key] : 0;
    return (double)(there - (start > here ? start : here));
}

/* Passes over the slots that there is no time for. */
static void leave_out(decoding *d) {
    if (d->go->limit_s <= 0 || d->slot >= d->go->n_frames || d->n_decoded == 0)
        return;
    const double elapsed_s = lb_now_s() - d->start_s;
    const double left = (d->go->limit_s - elapsed_s) * (double)d->n_decoded / elapsed_s;
    d->slot = lb_thin_next(d->slot - 1, d->go->n_frames, left, cost_of, d);
}

void lb_frames_decode(lb_input *input, const lb_stream_index *index, lb_pixels *pixels, int threads,
                      const lb_decode_go *go, uint8_t *out) {
    decoding d = {
        .input = input,
        .index = index,
        .pixels = pixels,
        .go = go,
        .out = out,
        .codec = open_codec(input, threads),
        .packet = av_packet_alloc(),
        .frame = av_frame_alloc(),
        .last = av_frame_alloc(),
        .is_timed = index->is_timed,
        .number_of_packet = calloc((size_t)index->n, sizeof(int32_t)),
        .run_start = -1,
        .start_s = lb_now_s(),
    };
    if (!d.packet || !d.frame || !d.last || !d.number_of_packet)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for a frame");
    for (int i = 0; i < index->n; i++)
        d.number_of_packet[index->by_time[i]] = i;
    const enum AVCodecID id = input->codec->id;
    d.skips = d.is_timed && (id == AV_CODEC_ID_H264 || id == AV_CODEC_ID_MPEG4 || id == AV_CODEC_ID_MPEG2VIDEO);
    while (d.slot < go->n_frames) {
        const int wanted = (int)go->index[d.slot];
        const int key = d.is_timed ? lb_stream_index_key(index, wanted, 0) : 0;
        if (d.run_start < 0 || key > input->next + WORTH_JUMPING)
            start_at(&d, key);
        /* A run that starts too late (a packet marked as key that is none, gradual refresh) goes back by 1, 2, 4, ...
         * key packets, and at last to the start, from where everything is taken as it comes. */
        int back = 0;
        for (;;) {
            const bool skipped = d.skips;
            const bool started_well = advance(&d);
            const bool is_empty = d.is_over && !d.last->buf[0];
            if (started_well && (!is_empty || d.run_start == 0))
                break;
            if (d.skips == skipped) /* else once more from the same packet, decoding every frame */
                back = back == 0 ? 1 : back > (1 << 20) ? back : 2 * back;
            start_at(&d, lb_stream_index_key(index, (int)go->index[d.slot], back));
        }
        if (d.is_over)
            fill_rest(&d);
        leave_out(&d);
    }
}
