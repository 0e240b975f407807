/* The portable kernels: what the vectorised ones must agree with, and the path of other CPUs. */
#include "image/resize_internal.h"

static uint8_t to_byte(int32_t sum) {
    const int32_t value = sum >> LB_RESIZE_PRECISION_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void vertical(const lb_resize_axis *axis, int y, const uint8_t *first, size_t stride, size_t n_bytes,
                     uint8_t *out) {
    const int32_t *coeff = axis->coeff + (size_t)y * 2 * axis->pairs;
    const int n_taps = axis->n_taps[y];
    for (size_t x = 0; x < n_bytes; x++) {
        int32_t sum = 1 << (LB_RESIZE_PRECISION_BITS - 1);
        for (int tap = 0; tap < n_taps; tap++)
            sum += first[(size_t)tap * stride + x] * coeff[tap];
        out[x] = to_byte(sum);
    }
}

static void horizontal(const lb_resize_axis *axis, const uint8_t *const rows[LB_RESIZE_ROWS], uint8_t *out,
                       size_t out_stride) {
    for (int row = 0; row < LB_RESIZE_ROWS; row++) {
        uint8_t *to = out + (size_t)row * out_stride;
        for (int x = 0; x < axis->n_out; x++) {
            const int32_t *coeff = axis->coeff + (size_t)x * 2 * axis->pairs;
            const uint8_t *from = rows[row] + 3 * (size_t)axis->start[x];
            int32_t red = 1 << (LB_RESIZE_PRECISION_BITS - 1), green = red, blue = red;
            for (int tap = 0; tap < axis->n_taps[x]; tap++, from += 3) {
                red += from[0] * coeff[tap];
                green += from[1] * coeff[tap];
                blue += from[2] * coeff[tap];
            }
            *to++ = to_byte(red);
            *to++ = to_byte(green);
            *to++ = to_byte(blue);
        }
    }
}

const lb_resize_kernels lb_resize_kernels_scalar = {.name = "scalar", .vertical = vertical, .horizontal = horizontal};
