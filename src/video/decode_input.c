#include "video/decode.h"

#include <errno.h>
#include <libavutil/mem.h>
#include <libavutil/opt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Containers that hold their video themselves. Playlists, image sequences, concatenations and devices, which FFmpeg
 * would also recognise, make it open other files or addresses that the video names. */
static const char containers[] = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,h264,hevc,av1,obu,"
                                 "m4v,mjpeg,gif,mxf,nut,yuv4mpegpipe,dv,vc1";

enum { IO_BUFFER_BYTES = 1 << 16 };

/* Where at least this much lies between two key packets, seeking is cheaper than reading over it. */
static const int64_t seek_bytes = 8 << 20;

static int read_bytes(void *opaque, uint8_t *buffer, int size) {
    lb_input *input = opaque;
    ssize_t bytes;
    do
        bytes = pread(input->fd, buffer, (size_t)size, (off_t)input->position);
    while (bytes < 0 && errno == EINTR);
    if (bytes < 0)
        return AVERROR(errno);
    if (bytes == 0)
        return AVERROR_EOF;
    input->position += bytes;
    return (int)bytes;
}

static int64_t seek_byte(void *opaque, int64_t offset, int whence) {
    lb_input *input = opaque;
    switch (whence & ~AVSEEK_FORCE) {
    case AVSEEK_SIZE:
        return input->size;
    case SEEK_CUR:
        offset += input->position;
        break;
    case SEEK_END:
        offset += input->size;
        break;
    case SEEK_SET:
        break;
    default:
        return AVERROR(EINVAL);
    }
    if (offset < 0)
        return AVERROR(EINVAL);
    return input->position = offset;
}

static int refuse_other_files(AVFormatContext *format, AVIOContext **io, const char *url, int flags,
                              AVDictionary **options) {
    (void)format, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

/* Opens the file again from its first byte: the state in which packets come out as the first time. */
static void open_format(lb_input *input) {
    if (input->format) {
        AVIOContext *old = input->format->pb;
        avformat_close_input(&input->format);
        av_freep(&old->buffer);
        avio_context_free(&old);
    }
    input->position = 0;
    uint8_t *buffer = av_malloc(IO_BUFFER_BYTES);
    AVIOContext *io =
        buffer ? avio_alloc_context(buffer, IO_BUFFER_BYTES, 0, input, read_bytes, NULL, seek_byte) : NULL;
    input->format = avformat_alloc_context();
    if (!io || !input->format)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory to open the video");
    input->format->pb = io;
    input->format->io_open = refuse_other_files;
    av_opt_set(input->format, "format_whitelist", containers, 0);

    char name[sizeof input->extension + 8];
    snprintf(name, sizeof name, "video.%s", input->extension);
    int code = avformat_open_input(&input->format, name, NULL, NULL);
    if (code == AVERROR(ENOMEM))
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory to open the video");
    if (code < 0)
        lb_decode_fail(LB_STATUS_FORMAT, "not a video that can be read: %s", lb_decode_text(code));
    code = avformat_find_stream_info(input->format, NULL);
    if (code < 0)
        lb_decode_fail(LB_STATUS_FORMAT, "the video's streams cannot be read: %s", lb_decode_text(code));

    const AVCodec *codec = NULL;
    const int chosen = av_find_best_stream(input->format, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (chosen == AVERROR_DECODER_NOT_FOUND) {
        const char *codec_name = "unknown";
        for (unsigned i = 0; i < input->format->nb_streams; i++)
            if (input->format->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_VIDEO)
                codec_name = avcodec_get_name(input->format->streams[i]->codecpar->codec_id);
        lb_decode_fail(LB_STATUS_UNSUPPORTED, "this FFmpeg has no decoder for the video's codec, %s", codec_name);
    }
    if (chosen < 0)
        lb_decode_fail(LB_STATUS_FORMAT, "no video stream in this file");
    input->stream = input->format->streams[chosen];
    input->codec = codec;
    if (input->stream->disposition & AV_DISPOSITION_ATTACHED_PIC)
        lb_decode_fail(LB_STATUS_FORMAT, "no video stream in this file, only a cover picture");
    for (unsigned i = 0; i < input->format->nb_streams; i++)
        if ((int)i != chosen)
            input->format->streams[i]->discard = AVDISCARD_ALL;
    input->next = 0;
    input->has_peeked = false;
    input->read_error = 0;
}

void lb_input_open(lb_input *input, int fd, int64_t size, const char *extension) {
    *input = (lb_input){.fd = fd, .size = size, .peeked = av_packet_alloc()};
    if (!input->peeked)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for a packet");
    snprintf(input->extension, sizeof input->extension, "%s", extension);
    open_format(input);
}

bool lb_input_read(lb_input *input, AVPacket *packet) {
    if (input->has_peeked) {
        av_packet_move_ref(packet, input->peeked);
        input->has_peeked = false;
        input->next++;
        return true;
    }
    for (;;) {
        const int code = av_read_frame(input->format, packet);
        if (code < 0) {
            input->read_error = code == AVERROR_EOF ? 0 : code;
            return false;
        }
        if (packet->stream_index == input->stream->index) {
            lb_decode_progress();
            input->next++;
            return true;
        }
        av_packet_unref(packet);
    }
}

/* Whether packet is the one that the scan saw as number i. Decoding times are no help: some demuxers count them anew
 * after a seek. */
static bool is_same(const lb_packet_info *seen, const AVPacket *packet) {
    return seen->pts == packet->pts && (seen->position == packet->pos || seen->position < 0 || packet->pos < 0);
}

/* Seeks to key packet k; true when the demuxer now stands at a packet between `least` and k, as the scan knew them. */
static bool seek_to(lb_input *input, const lb_stream_index *index, int k, int least) {
    const int64_t times[] = {index->packets[k].pts, index->packets[k].dts};
    for (int attempt = 0; attempt < 2; attempt++) {
        if (times[attempt] == AV_NOPTS_VALUE ||
            av_seek_frame(input->format, input->stream->index, times[attempt], AVSEEK_FLAG_BACKWARD) < 0)
            continue;
        input->has_peeked = false;
        av_packet_unref(input->peeked);
        if (!lb_input_read(input, input->peeked))
            continue;
        for (int i = k; i >= least; i--)
            if (is_same(&index->packets[i], input->peeked)) {
                input->has_peeked = true;
                input->next = i;
                return true;
            }
        av_packet_unref(input->peeked);
    }
    return false;
}

static bool worth_seeking(const lb_input *input, const lb_stream_index *index, int from, int k) {
    const int64_t a = index->packets[from].position, b = index->packets[k].position;
    return !input->no_seek && index->is_timed && a >= 0 && b >= 0 && b - a >= seek_bytes;
}

void lb_input_move(lb_input *input, const lb_stream_index *index, int k) {
    if (k == input->next)
        return;
    const bool back = k < input->next;
    bool must_reopen = back;
    if (worth_seeking(input, index, back ? 0 : input->next, k)) {
        if (seek_to(input, index, k, back ? 0 : input->next)) {
            must_reopen = false;
        } else {
            /* This demuxer's seeking does not lead where it should; reading over packets always does. */
            input->no_seek = true;
            must_reopen = true;
        }
    }
    if (must_reopen)
        open_format(input);
    AVPacket *packet = av_packet_alloc();
    if (!packet)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for a packet");
    while (input->next < k && lb_input_read(input, packet)) {
        const bool as_seen = is_same(&index->packets[input->next - 1], packet);
        av_packet_unref(packet);
        if (!as_seen && !input->no_seek) { /* after a seek the demuxer counts time differently: start afresh */
            input->no_seek = true;
            open_format(input);
        }
    }
    av_packet_free(&packet);
}

double lb_input_fps(const lb_input *input, const lb_stream_index *index) {
    /* decord's get_avg_fps() is this field; where it is empty (0/0, there NaN), the rate that the times give. */
    const AVRational rate = input->stream->avg_frame_rate;
    if (rate.num > 0 && rate.den > 0)
        return av_q2d(rate);
    if (index->is_timed && index->n > 1) {
        const int64_t first = index->packets[index->by_time[0]].pts;
        const int64_t last = index->packets[index->by_time[index->n - 1]].pts;
        const double seconds = ((double)last - (double)first) * av_q2d(input->stream->time_base);
        if (seconds > 0)
            return (index->n - 1) / seconds;
    }
    const AVRational guess = input->stream->r_frame_rate;
    return guess.num > 0 && guess.den > 0 ? av_q2d(guess) : 0;
}
