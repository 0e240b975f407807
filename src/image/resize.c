/* Pillow's Image.resize over any box of a frame, in two passes. Rows pass through a buffer that stays in the cache,
 * instead of a whole intermediate picture as Pillow keeps it. */
#include "image/resize_internal.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

const lb_resize_kernels *lb_resize_kernels_best(void) {
    const lb_resize_kernels *avx512 = lb_resize_kernels_avx512(), *avx2 = lb_resize_kernels_avx2();
    return avx512 ? avx512 : avx2 ? avx2 : &lb_resize_kernels_scalar;
}

/* One call's work: what both orders of the passes need. */
typedef struct resize_job {
    lb_image_view frame; /* the columns of the frame that lie in the box, all its rows */
    lb_resize_axis horizontal, vertical;
    const lb_resize_kernels *kernels;
    lb_resize_sink sink;
    int width, height; /* of the result */
} resize_job;

static uint8_t *sink_row(const lb_resize_sink *sink, int y, int column) {
    const size_t tile_row = 3 * (size_t)sink->tile_width, tile = tile_row * (size_t)sink->tile_height;
    const size_t n = (size_t)(y / sink->tile_height) * (size_t)sink->n_columns + (size_t)column;
    return sink->out + n * tile + (size_t)(y % sink->tile_height) * tile_row;
}

/* Rows after the horizontal pass: buffer row i is frame row first + i. */
typedef struct row_buffer {
    uint8_t *rows;
    size_t stride; /* bytes, room for the byte that a kernel writes past the end */
    int capacity, first, count;
    uint8_t *padded; /* [LB_RESIZE_ROWS][padded_stride]: copies of the rows that a kernel would read past */
    size_t padded_stride;
} row_buffer;

static lb_status row_buffer_init(row_buffer *buffer, const resize_job *job, int capacity, size_t padded_stride,
                                 lb_error *error) {
    buffer->stride = (3 * (size_t)job->width + 1 + 63) / 64 * 64;
    buffer->capacity = capacity;
    buffer->padded_stride = padded_stride ? padded_stride : 1;
    buffer->rows = malloc(buffer->stride * (size_t)capacity);
    buffer->padded = calloc(LB_RESIZE_ROWS, buffer->padded_stride);
    if (buffer->rows && buffer->padded)
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d rows of %d pixels of a resize", capacity,
                        job->width);
}

static void row_buffer_free(row_buffer *buffer) {
    free(buffer->rows);
    free(buffer->padded);
}

/* Appends frame rows [from, from + n), n <= LB_RESIZE_ROWS; there is room for LB_RESIZE_ROWS. */
static void append_rows(row_buffer *buffer, const resize_job *job, int from, int n) {
    const lb_image_view *frame = &job->frame;
    const size_t frame_bytes = (size_t)(frame->height - 1) * frame->stride + 3 * (size_t)frame->width;
    const uint8_t *rows[LB_RESIZE_ROWS];
    for (int i = 0; i < LB_RESIZE_ROWS; i++) {
        if (i >= n) { /* a kernel always takes all: the last row again, into rows that nothing holds yet */
            rows[i] = rows[n - 1];
            continue;
        }
        const size_t at = (size_t)(from + i) * frame->stride;
        rows[i] = frame->data + at;
        if (frame_bytes - at < buffer->padded_stride) { /* mostly the last row */
            const size_t row_bytes = 3 * (size_t)frame->width;
            uint8_t *copy = buffer->padded + (size_t)i * buffer->padded_stride;
            memcpy(copy, rows[i], row_bytes < buffer->padded_stride ? row_bytes : buffer->padded_stride);
            rows[i] = copy;
        }
    }
    job->kernels->horizontal(&job->horizontal, rows, buffer->rows + (size_t)buffer->count * buffer->stride,
                             buffer->stride);
    buffer->count += n;
}

/* Makes frame rows [from, from + n) present; rows before them are not asked for again. Rows up to last (exclusive) are
 * wanted later, so the kernel's batches may run ahead. Returns the first row. */
static const uint8_t *fetch_rows(row_buffer *buffer, const resize_job *job, int from, int n, int last) {
    if (from >= buffer->first + buffer->count) {
        buffer->first = from;
        buffer->count = 0;
    }
    while (buffer->first + buffer->count < from + n) {
        if (buffer->count + LB_RESIZE_ROWS > buffer->capacity) {
            const int stale = from - buffer->first;
            buffer->count -= stale;
            memmove(buffer->rows, buffer->rows + (size_t)stale * buffer->stride,
                    (size_t)buffer->count * buffer->stride);
            buffer->first = from;
        }
        const int next = buffer->first + buffer->count;
        append_rows(buffer, job, next, last - next < LB_RESIZE_ROWS ? last - next : LB_RESIZE_ROWS);
    }
    return buffer->rows + (size_t)(from - buffer->first) * buffer->stride;
}

static void write_row(const resize_job *job, int y, const uint8_t *rows, size_t stride) {
    const size_t tile_row = 3 * (size_t)job->sink.tile_width;
    for (int column = 0; column < job->sink.n_columns; column++) {
        uint8_t *out = sink_row(&job->sink, y, column);
        if (job->vertical.n_taps[y] == 0)
            memset(out, 0, tile_row);
        else if (job->vertical.identity)
            memcpy(out, rows + (size_t)column * tile_row, tile_row);
        else
            job->kernels->vertical(&job->vertical, y, rows + (size_t)column * tile_row, stride, tile_row, out);
    }
}

/* Also the way when one pass or both leave the picture as it is. */
static lb_status horizontal_first(const resize_job *job, lb_error *error) {
    const lb_resize_axis *vertical = &job->vertical;
    row_buffer buffer = {0};
    /* Twice the filter's height: each row is moved to the front at most once for each row that comes in. */
    if (!job->horizontal.identity && row_buffer_init(&buffer, job, 2 * vertical->max_taps + 4 * LB_RESIZE_ROWS,
                                                     lb_resize_read_end(&job->horizontal), error) != LB_STATUS_OK) {
        row_buffer_free(&buffer);
        return LB_STATUS_OUT_OF_MEMORY;
    }
    int last = 0;
    for (int y = 0; y < job->height; y++)
        if (vertical->n_taps[y] > 0)
            last = vertical->start[y] + vertical->n_taps[y];
    for (int y = 0; y < job->height; y++) {
        const uint8_t *rows = NULL;
        size_t stride = 0;
        if (vertical->n_taps[y] > 0 && job->horizontal.identity) {
            rows = job->frame.data + (size_t)vertical->start[y] * job->frame.stride;
            stride = job->frame.stride;
        } else if (vertical->n_taps[y] > 0) {
            rows = fetch_rows(&buffer, job, vertical->start[y], vertical->n_taps[y], last);
            stride = buffer.stride;
        }
        write_row(job, y, rows, stride);
    }
    row_buffer_free(&buffer);
    return LB_STATUS_OK;
}

static lb_status vertical_first(const resize_job *job, lb_error *error) {
    const lb_resize_axis *vertical = &job->vertical;
    const size_t row_bytes = 3 * (size_t)job->frame.width, tile_row = 3 * (size_t)job->sink.tile_width;
    const size_t read_end = lb_resize_read_end(&job->horizontal);
    row_buffer buffer = {0};
    const lb_status status =
        row_buffer_init(&buffer, job, LB_RESIZE_ROWS, read_end > row_bytes ? read_end : row_bytes, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    for (int y = 0; y < job->height; y += LB_RESIZE_ROWS) {
        const int n = job->height - y < LB_RESIZE_ROWS ? job->height - y : LB_RESIZE_ROWS;
        const uint8_t *rows[LB_RESIZE_ROWS];
        for (int i = 0; i < LB_RESIZE_ROWS; i++) {
            uint8_t *row = buffer.padded + (size_t)i * buffer.padded_stride;
            rows[i] = row;
            if (i >= n) /* computed along and not used */
                continue;
            if (vertical->n_taps[y + i] == 0)
                memset(row, 0, row_bytes);
            else
                job->kernels->vertical(vertical, y + i,
                                       job->frame.data + (size_t)vertical->start[y + i] * job->frame.stride,
                                       job->frame.stride, row_bytes, row);
        }
        job->kernels->horizontal(&job->horizontal, rows, buffer.rows, buffer.stride);
        for (int i = 0; i < n; i++)
            for (int column = 0; column < job->sink.n_columns; column++)
                memcpy(sink_row(&job->sink, y + i, column),
                       buffer.rows + (size_t)i * buffer.stride + (size_t)column * tile_row, tile_row);
    }
cleanup:
    row_buffer_free(&buffer);
    return status;
}

static bool side_is_valid(long long side) {
    return side >= 1 && side <= LB_RESIZE_MAX_SIDE;
}

lb_status lb_resize_region(lb_image_view frame, const long long box[4], int width, int height, lb_resize_filter filter,
                           lb_resize_order order, const lb_resize_kernels *kernels, lb_resize_sink sink,
                           lb_error *error) {
    if (!side_is_valid(frame.width) || !side_is_valid(frame.height) || !side_is_valid(width) ||
        !side_is_valid(height) || !side_is_valid(box[2]) || !side_is_valid(box[3]) ||
        frame.stride < 3 * (size_t)frame.width)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "cannot resize %lldx%lld of a picture of %dx%d (%zu bytes a row) to %dx%d: each side must "
                            "be 1 to %d pixels",
                            box[2], box[3], frame.width, frame.height, frame.stride, width, height, LB_RESIZE_MAX_SIDE);

    /* The columns of the box that the frame has; where it has none, any one will do, and no tap reads it. */
    long long left = box[0] < 0 ? 0 : box[0], right = box[0] + box[2];
    right = right > frame.width ? frame.width : right;
    if (left >= right) {
        left = 0;
        right = 1;
    }
    resize_job job = {.frame = frame, .kernels = kernels, .sink = sink, .width = width, .height = height};
    job.frame.data += 3 * (size_t)left;
    job.frame.width = (int)(right - left);
    lb_status status =
        lb_resize_axis_init(&job.horizontal, box[0] - left, (int)box[2], job.frame.width, width, filter, error);
    if (status == LB_STATUS_OK)
        status = lb_resize_axis_init(&job.vertical, box[1], (int)box[3], frame.height, height, filter, error);
    if (status != LB_STATUS_OK)
        goto cleanup;

    const long long rows_less = box[3] - height, columns_less = box[2] - width;
    if (order == LB_RESIZE_ORDER_PILLOW_13 && rows_less > 0 && rows_less > 2 * columns_less && !job.horizontal.identity)
        status = vertical_first(&job, error);
    else
        status = horizontal_first(&job, error);

cleanup:
    lb_resize_axis_free(&job.horizontal);
    lb_resize_axis_free(&job.vertical);
    return status;
}

lb_status lb_image_resize(lb_image_view source, int width, int height, lb_resize_filter filter, uint8_t *out,
                          lb_error *error) {
    const long long box[4] = {0, 0, source.width, source.height};
    const lb_resize_sink sink = {.out = out, .tile_width = width, .tile_height = height, .n_columns = 1};
    return lb_resize_region(source, box, width, height, filter, LB_RESIZE_ORDER_DEFAULT, lb_resize_kernels_best(), sink,
                            error);
}
