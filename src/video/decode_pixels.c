#include "video/decode.h"

#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <stdlib.h>
#include <string.h>

static const int32_t *display_matrix(const AVStream *stream) {
    size_t bytes = 0;
    const uint8_t *data = NULL;
#if LIBAVCODEC_VERSION_MAJOR >= 61
    const AVPacketSideData *side = av_packet_side_data_get(
        stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    if (side) {
        data = side->data;
        bytes = side->size;
    }
#else
    data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &bytes);
#endif
    return data && bytes >= 9 * sizeof(int32_t) ? (const int32_t *)(const void *)data : NULL;
}

/* A point (x, y) of the coded picture is shown at (m0 x + m3 y, m1 x + m4 y): turns by right angles and mirrorings;
 * other angles, which no camera writes, become the nearest of these. */
static lb_orientation read_orientation(const AVStream *stream) {
    const int32_t *m = display_matrix(stream);
    if (!m)
        return (lb_orientation){0};
    const int64_t straight = llabs((int64_t)m[0]) + llabs((int64_t)m[4]);
    const int64_t crossed = llabs((int64_t)m[1]) + llabs((int64_t)m[3]);
    if (crossed > straight)
        return (lb_orientation){.transposed = true, .flip_x = m[3] < 0, .flip_y = m[1] < 0};
    return (lb_orientation){.flip_x = m[0] < 0, .flip_y = m[4] < 0};
}

void lb_pixels_init(lb_pixels *pixels, const AVStream *stream) {
    *pixels = (lb_pixels){
        .coded_width = stream->codecpar->width,
        .coded_height = stream->codecpar->height,
        .orientation = read_orientation(stream),
        .rgb = av_frame_alloc(),
    };
    const int width = pixels->coded_width, height = pixels->coded_height;
    if (width < 1 || height < 1)
        lb_decode_fail(LB_STATUS_FORMAT, "the video's frame size is not to be found; the file may be cut off");
    if (width > LB_DECODE_SIDE_MAX || height > LB_DECODE_SIDE_MAX || (int64_t)width * height > LB_DECODE_PIXELS_MAX)
        lb_decode_fail(LB_STATUS_UNSUPPORTED, "frames of %dx%d are larger than this program takes", width, height);
    pixels->width = pixels->orientation.transposed ? height : width;
    pixels->height = pixels->orientation.transposed ? width : height;
    if (!pixels->rgb)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for a frame");
    /* Not straight into the shared memory: swscale's vector code is at its best, and decord's, on aligned rows. */
    pixels->rgb->format = AV_PIX_FMT_RGB24;
    pixels->rgb->width = width;
    pixels->rgb->height = height;
    if (av_frame_get_buffer(pixels->rgb, 0) < 0)
        lb_decode_fail(LB_STATUS_OUT_OF_MEMORY, "no memory for a frame of %dx%d", width, height);
}

/* What decord's filter graph "scale=W:H" to rgb24 does in the FFmpeg that it ships (libavfilter 7, vf_scale.c):
 * bilinear, the matrix and the range as the frame says, BT.601 and limited range where it says nothing. */
static void prepare(lb_pixels *pixels, const AVFrame *frame) {
    struct SwsContext *before = pixels->sws;
    pixels->sws = sws_getCachedContext(before, frame->width, frame->height, frame->format, pixels->coded_width,
                                       pixels->coded_height, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL, NULL, NULL);
    if (!pixels->sws)
        lb_decode_fail(LB_STATUS_UNSUPPORTED, "pixels of this kind cannot be converted to RGB");
    int *table, *inverse, from_full, to_full, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(pixels->sws, &inverse, &from_full, &table, &to_full, &brightness, &contrast,
                                 &saturation) < 0)
        return; /* RGB and grey have no matrix */
    int matrix = frame->colorspace;
    if (matrix < 1 || matrix > 10 || matrix == 8)
        matrix = AVCOL_SPC_BT470BG;
    if (frame->color_range != AVCOL_RANGE_UNSPECIFIED)
        from_full = frame->color_range == AVCOL_RANGE_JPEG;
    sws_setColorspaceDetails(pixels->sws, sws_getCoefficients(matrix), from_full, table, to_full, brightness, contrast,
                             saturation);
}

static void copy_upright(const lb_pixels *pixels, uint8_t *out) {
    const lb_orientation o = pixels->orientation;
    const uint8_t *in = pixels->rgb->data[0];
    const ptrdiff_t stride = pixels->rgb->linesize[0];
    /* A step right and a step down in the output, as steps in the input. */
    ptrdiff_t step_x = o.transposed ? stride : 3, step_y = o.transposed ? 3 : stride;
    if (o.flip_x) {
        in += step_x * (pixels->width - 1);
        step_x = -step_x;
    }
    if (o.flip_y) {
        in += step_y * (pixels->height - 1);
        step_y = -step_y;
    }
    for (int y = 0; y < pixels->height; y++, in += step_y) {
        const uint8_t *pixel = in;
        if (step_x == 3) {
            memcpy(out, in, 3 * (size_t)pixels->width);
            out += 3 * (size_t)pixels->width;
            continue;
        }
        for (int x = 0; x < pixels->width; x++, pixel += step_x, out += 3)
            memcpy(out, pixel, 3);
    }
}

void lb_pixels_convert(lb_pixels *pixels, const AVFrame *frame, uint8_t *out) {
    prepare(pixels, frame);
    const int rows = sws_scale(pixels->sws, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height,
                               pixels->rgb->data, pixels->rgb->linesize);
    if (rows != pixels->coded_height)
        lb_decode_fail(LB_STATUS_FORMAT, "a frame of %dx%d cannot be converted to RGB", frame->width, frame->height);
    copy_upright(pixels, out);
}
