/* The two passes of a resize, as the driver (resize.c), the coefficients (resize_coeffs.c) and the kernels
 * (resize_scalar.c, resize_avx2.c, resize_avx512.c) share them. tiles.h is the door for everybody else.
 *
 * Pillow computes each pass as  byte = clip((2^21 + sum(pixel * coefficient)) >> 22)  with coefficients of 22 fraction
 * bits and int32 sums. Integer sums have no order, so any kernel that loses no bit gives Pillow's bytes.
 */
#ifndef LB_IMAGE_RESIZE_INTERNAL_H
#define LB_IMAGE_RESIZE_INTERNAL_H

#include "image/image.h"
#include "image/tiles.h"
#include "lowbeam/status.h"

#include <stdbool.h>

/* Pillow's PRECISION_BITS: 32 bits less 8 of the pixel, one for the sign, one for the overshoot of negative lobes. */
#define LB_RESIZE_PRECISION_BITS 22
/* Pixels a side, of source and result: up to here Pillow's single-precision box holds every size exactly. */
#define LB_RESIZE_MAX_SIDE (1 << 24)
/* Rows that a horizontal kernel takes at once. */
#define LB_RESIZE_ROWS 8

/* One direction: for each output position the source positions it reads, with what weights.
 * Coefficients come in pairs; an odd last one is followed by a zero. */
typedef struct lb_resize_axis {
    int n_out;
    int max_taps;   /* largest n_taps */
    int pairs;      /* coefficient pairs stored per output position: (max_taps + 1) / 2 */
    bool identity;  /* output i is source start[i], unchanged: the pass is left out, there are no coefficients */
    int *start;     /* [n_out] first source position read, inside the frame; never decreasing where n_taps > 0 */
    int *n_taps;    /* [n_out] 0: nothing of the frame is in reach, the output is black */
    int32_t *coeff; /* [n_out][2 * pairs], zero after n_taps */
    /* [n_out][pairs][4]: the same coefficients as two 16-bit halves, high a, high b, low a, low b, with
     * coefficient = high * 256 + low and 0 <= low < 256: products and sums of both halves are exact in pmaddwd. */
    int16_t *split;
    int quads; /* groups of four coefficients stored per output position: (max_taps + 3) / 4 */
    /* [n_out][quads][3][4]: the same coefficients as three signed digits to the base 256, low ones first, of four taps
     * each: coefficient = high * 65536 + middle * 256 + low, for vpdpbusd. */
    int8_t *digits;
} lb_resize_axis;

/* box_start, box_size: the part of the frame's axis to be resized to n_out, allowed to reach outside 0..frame_size-1;
 * what lies outside is black, so its taps are left out (the weights still are those of the whole box).
 * Sizes: 1..LB_RESIZE_MAX_SIDE. Errors: OUT_OF_MEMORY. */
lb_status lb_resize_axis_init(lb_resize_axis *axis, long long box_start, int box_size, int frame_size, int n_out,
                              lb_resize_filter filter, lb_error *error);
void lb_resize_axis_free(lb_resize_axis *axis);

typedef struct lb_resize_kernels {
    const char *name;

    /* One output row segment of n_bytes from axis->n_taps[y] rows: rows[i] = first + i * stride. */
    void (*vertical)(const lb_resize_axis *axis, int y, const uint8_t *first, size_t stride, size_t n_bytes,
                     uint8_t *out);

    /* LB_RESIZE_ROWS rows from rows[] to out + i * out_stride, n_out pixels of 3 bytes each. May read rows[i] up to
     * lb_resize_read_end, and write one byte after each output row. */
    void (*horizontal)(const lb_resize_axis *axis, const uint8_t *const rows[LB_RESIZE_ROWS], uint8_t *out,
                       size_t out_stride);
} lb_resize_kernels;

/* Bytes from a row's begin that a horizontal kernel may read: some past the last tap, whose weights are zero. */
size_t lb_resize_read_end(const lb_resize_axis *axis);

extern const lb_resize_kernels lb_resize_kernels_scalar;
/* NULL where the CPU or the compiler has them not. */
const lb_resize_kernels *lb_resize_kernels_avx2(void);
const lb_resize_kernels *lb_resize_kernels_avx512(void);
const lb_resize_kernels *lb_resize_kernels_best(void);

/* Which pass is first. It shows, since each pass rounds to bytes. */
typedef enum lb_resize_order {
    /* Pillow 13: vertical first where more than twice as many rows as columns go away; else horizontal first. */
    LB_RESIZE_ORDER_PILLOW_13,
    LB_RESIZE_ORDER_HORIZONTAL_FIRST, /* Pillow before 13 */
} lb_resize_order;
#define LB_RESIZE_ORDER_DEFAULT LB_RESIZE_ORDER_PILLOW_13

/* Where results go: tiles of tile_width x tile_height pixels, row by row, n_columns of them side by side; each tile is
 * [tile_height][tile_width][3]. A plain picture is one tile. */
typedef struct lb_resize_sink {
    uint8_t *out;
    int tile_width, tile_height, n_columns;
} lb_resize_sink;

/* box: x, y, width, height in the frame's pixels. Errors: INVALID_ARGUMENT (sizes), OUT_OF_MEMORY. */
lb_status lb_resize_region(lb_image_view frame, const long long box[4], int width, int height, lb_resize_filter filter,
                           lb_resize_order order, const lb_resize_kernels *kernels, lb_resize_sink sink,
                           lb_error *error);

#endif
