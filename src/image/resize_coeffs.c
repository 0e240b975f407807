/* Weights of a resize, computed as Pillow's Resample.c (precompute_coeffs, normalize_coeffs_8bpc) computes them: the
 * same double operations in the same order, so that the rounded integers are the same. */
#include "image/resize_internal.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* No fused multiply-add: it rounds once where Pillow's build rounds twice. GCC keeps to that with -std=c11. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
#ifdef __FAST_MATH__
#error "resize_coeffs.c must give Pillow's doubles: build it without -ffast-math"
#endif

static double bicubic(double x) {
    const double a = -0.5;
    if (x < 0.0)
        x = -x;
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double bilinear(double x) {
    if (x < 0.0)
        x = -x;
    return x < 1.0 ? 1.0 - x : 0.0;
}

static int32_t to_fixed(double weight) {
    const double one = (double)(1 << LB_RESIZE_PRECISION_BITS);
    return weight < 0 ? (int32_t)(-0.5 + weight * one) : (int32_t)(0.5 + weight * one);
}

/* Pillow's (int) casts, with the limits applied before the cast so that it cannot overflow. */
static int clamp_position(double position, int size) {
    if (position < 0.0)
        return 0;
    return position < size ? (int)position : size;
}

/* |coefficient| < 1.2 * 2^22: the highest parts fit their types. */
static void set_coefficient(lb_resize_axis *axis, int i, int tap, int32_t coefficient) {
    const size_t in_pair = (size_t)(tap & 1), in_quad = (size_t)(tap & 3);
    const size_t pair = (size_t)i * axis->pairs + (size_t)(tap / 2), quad = (size_t)i * axis->quads + (size_t)(tap / 4);
    axis->coeff[2 * pair + in_pair] = coefficient;
    axis->split[4 * pair + in_pair] = (int16_t)(coefficient >> 8);
    axis->split[4 * pair + 2 + in_pair] = (int16_t)(coefficient & 255);

    const int32_t low = ((coefficient + 128) & 255) - 128, rest = (coefficient - low) / 256;
    const int32_t middle = ((rest + 128) & 255) - 128, high = (rest - middle) / 256;
    axis->digits[12 * quad + in_quad] = (int8_t)low;
    axis->digits[12 * quad + 4 + in_quad] = (int8_t)middle;
    axis->digits[12 * quad + 8 + in_quad] = (int8_t)high;
}

lb_status lb_resize_axis_init(lb_resize_axis *axis, long long box_start, int box_size, int frame_size, int n_out,
                              lb_resize_filter filter, lb_error *error) {
    double (*weight)(double) = filter == LB_RESIZE_FILTER_BILINEAR ? bilinear : bicubic;
    const double filter_support = filter == LB_RESIZE_FILTER_BILINEAR ? 1.0 : 2.0;
    const double scale = (double)box_size / n_out;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const double support = filter_support * filter_scale;
    const double inverse = 1.0 / filter_scale;

    *axis = (lb_resize_axis){.n_out = n_out};
    double *weights = NULL;
    axis->start = calloc((size_t)n_out, sizeof *axis->start);
    axis->n_taps = calloc((size_t)n_out, sizeof *axis->n_taps);
    if (!axis->start || !axis->n_taps)
        goto out_of_memory;

    /* Pillow leaves the pass out where sizes are equal. Computing it changes nothing, as the weights then are exactly
     * 0, 0, 1, 0; so a box that reaches outside the frame goes the common way. */
    if (box_size == n_out && box_start >= 0 && box_start + box_size <= frame_size) {
        axis->identity = true;
        axis->max_taps = 1;
        for (int i = 0; i < n_out; i++) {
            axis->start[i] = (int)box_start + i;
            axis->n_taps[i] = 1;
        }
        return LB_STATUS_OK;
    }

    /* First the extents, clipped to the frame, for the storage; then the weights. */
    int max_box_taps = 0;
    for (int i = 0; i < n_out; i++) {
        const double center = (i + 0.5) * scale;
        const int first = clamp_position(center - support + 0.5, box_size);
        const int end = clamp_position(center + support + 0.5, box_size);
        long long from = box_start + first, to = box_start + end;
        from = from < 0 ? 0 : from;
        to = to > frame_size ? frame_size : to;
        axis->start[i] = from < to ? (int)from : 0;
        axis->n_taps[i] = from < to ? (int)(to - from) : 0;
        if (axis->n_taps[i] > axis->max_taps)
            axis->max_taps = axis->n_taps[i];
        if (end - first > max_box_taps)
            max_box_taps = end - first;
    }
    axis->pairs = (axis->max_taps + 1) / 2;
    const size_t n_pairs = (size_t)n_out * (size_t)(axis->pairs ? axis->pairs : 1);
    axis->quads = (axis->max_taps + 3) / 4;
    axis->digits = calloc((size_t)n_out * (size_t)(axis->quads ? axis->quads : 1), 12 * sizeof *axis->digits);
    axis->coeff = calloc(n_pairs, 2 * sizeof *axis->coeff);
    axis->split = calloc(n_pairs, 4 * sizeof *axis->split);
    weights = calloc((size_t)max_box_taps, sizeof *weights);
    if (!axis->coeff || !axis->split || !axis->digits || !weights)
        goto out_of_memory;

    for (int i = 0; i < n_out; i++) {
        if (axis->n_taps[i] == 0)
            continue;
        const double center = (i + 0.5) * scale;
        const int first = clamp_position(center - support + 0.5, box_size);
        const int n = clamp_position(center + support + 0.5, box_size) - first;
        double sum = 0.0;
        for (int x = 0; x < n; x++) {
            weights[x] = weight((x + first - center + 0.5) * inverse);
            sum += weights[x];
        }
        const int skipped = (int)(axis->start[i] - (box_start + first));
        for (int tap = 0; tap < axis->n_taps[i]; tap++) {
            const double w = weights[skipped + tap];
            set_coefficient(axis, i, tap, to_fixed(sum != 0.0 ? w / sum : w));
        }
    }
    free(weights);
    return LB_STATUS_OK;

out_of_memory:
    free(weights);
    lb_resize_axis_free(axis);
    return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the weights of a resize from %d to %d pixels",
                        box_size, n_out);
}

void lb_resize_axis_free(lb_resize_axis *axis) {
    free(axis->start);
    free(axis->n_taps);
    free(axis->coeff);
    free(axis->split);
    free(axis->digits);
    *axis = (lb_resize_axis){0};
}

size_t lb_resize_read_end(const lb_resize_axis *axis) {
    size_t end = 0;
    for (int i = 0; i < axis->n_out; i++) {
        /* At most 16 bytes for each four taps, of which 12 are used. */
        const size_t quads = (size_t)(axis->n_taps[i] + 3) / 4;
        const size_t reads = quads ? 3 * (size_t)axis->start[i] + 12 * (quads - 1) + 16 : 0;
        if (reads > end)
            end = reads;
    }
    return end;
}
