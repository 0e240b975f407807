/* The kernels for CPUs with AVX2. The program is compiled for any x86-64; these functions alone use more.
 *
 * A coefficient has 23 bits and a sign, pmaddwd takes 16: each is split into high * 256 + low (resize_internal.h), the
 * two sums are kept apart in int32, and high * 256 + low is the very sum that the scalar kernel has. */
#include "image/resize_internal.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <string.h>

#define AVX2        __attribute__((target("avx2")))
#define INLINE_AVX2 __attribute__((target("avx2"), always_inline)) static inline

/* Two 16-bit coefficients in every 32-bit lane. */
INLINE_AVX2 __m256i broadcast_pair(const int16_t *pair) {
    int32_t both;
    memcpy(&both, pair, sizeof both);
    return _mm256_set1_epi32(both);
}

INLINE_AVX2 __m256i finish(__m256i high, __m256i low) {
    const __m256i half = _mm256_set1_epi32(1 << (LB_RESIZE_PRECISION_BITS - 1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, 8), low), half);
    return _mm256_srai_epi32(sum, LB_RESIZE_PRECISION_BITS);
}

/* 32 bytes of one output row. Saturating packs clip to 0..255 as Pillow's clip8 does. */
INLINE_AVX2 void vertical_32(const int16_t *split, int n_taps, const uint8_t *from, size_t stride, uint8_t *out) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i high[4] = {zero, zero, zero, zero}, low[4] = {zero, zero, zero, zero};
    for (int tap = 0; tap < n_taps; tap += 2, from += 2 * stride, split += 4) {
        const uint8_t *second = tap + 1 < n_taps ? from + stride : from; /* weight zero after the last row */
        const __m256i a = _mm256_loadu_si256((const __m256i *)from);
        const __m256i b = _mm256_loadu_si256((const __m256i *)second);
        const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
        const __m256i ab[4] = {_mm256_unpacklo_epi8(ab_low, zero), _mm256_unpackhi_epi8(ab_low, zero),
                               _mm256_unpacklo_epi8(ab_high, zero), _mm256_unpackhi_epi8(ab_high, zero)};
        const __m256i weight_high = broadcast_pair(split), weight_low = broadcast_pair(split + 2);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(ab[i], weight_high));
            low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(ab[i], weight_low));
        }
    }
    const __m256i first = _mm256_packs_epi32(finish(high[0], low[0]), finish(high[1], low[1]));
    const __m256i second = _mm256_packs_epi32(finish(high[2], low[2]), finish(high[3], low[3]));
    _mm256_storeu_si256((__m256i *)out, _mm256_packus_epi16(first, second));
}

AVX2 static void vertical(const lb_resize_axis *axis, int y, const uint8_t *first, size_t stride, size_t n_bytes,
                          uint8_t *out) {
    if (n_bytes < 32) {
        lb_resize_kernels_scalar.vertical(axis, y, first, stride, n_bytes, out);
        return;
    }
    const int16_t *split = axis->split + (size_t)y * 4 * axis->pairs;
    const int n_taps = axis->n_taps[y];
    for (size_t x = 0; x + 32 <= n_bytes; x += 32)
        vertical_32(split, n_taps, first + x, stride, out + x);
    if (n_bytes % 32) /* the last 32 bytes overlap what is done: the same bytes once more */
        vertical_32(split, n_taps, first + n_bytes - 32, stride, out + n_bytes - 32);
}

INLINE_AVX2 __m256i load_two(const uint8_t *a, const uint8_t *b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a)),
                                   _mm_loadu_si128((const __m128i *)b), 1);
}

INLINE_AVX2 __m256i load_two_halves(const uint8_t *a, const uint8_t *b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)a)),
                                   _mm_loadl_epi64((const __m128i *)b), 1);
}

INLINE_AVX2 void store_pixel(uint8_t *out, int value) {
    memcpy(out, &value, 4); /* the fourth byte is zero; the next pixel overwrites it */
}

/* Adds two pixels' worth of taps of two rows: pixels as load_two leaves them, weights as broadcast_pair does. */
INLINE_AVX2 void add_taps(__m256i pixels, __m256i order, __m256i weight_high, __m256i weight_low, __m256i *high,
                          __m256i *low) {
    const __m256i pairs = _mm256_shuffle_epi8(pixels, order);
    *high = _mm256_add_epi32(*high, _mm256_madd_epi16(pairs, weight_high));
    *low = _mm256_add_epi32(*low, _mm256_madd_epi16(pairs, weight_low));
}

/* Four rows, two to a register, one in each half; a half holds red, green, blue and nothing in its four 32-bit lanes.
 * More rows at once would not fit the 16 registers. */
INLINE_AVX2 void horizontal_4(const lb_resize_axis *axis, const uint8_t *const rows[4], uint8_t *out,
                              size_t out_stride) {
    /* Bytes r0 g0 b0 r1 g1 b1 ... to 16-bit r0 r1, g0 g1, b0 b1, 0 0; then the same for pixels 2 and 3. */
    const __m256i order_01 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i order_23 =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const __m256i zero = _mm256_setzero_si256();
    for (int x = 0; x < axis->n_out; x++, out += 3) {
        const int16_t *split = axis->split + (size_t)x * 4 * axis->pairs;
        const int pairs = (axis->n_taps[x] + 1) / 2;
        size_t at = 3 * (size_t)axis->start[x];
        __m256i high_a = zero, low_a = zero, high_b = zero, low_b = zero;
        for (int pair = 0; pair + 2 <= pairs; pair += 2, at += 12, split += 8) {
            const __m256i high_01 = broadcast_pair(split), low_01 = broadcast_pair(split + 2);
            const __m256i high_23 = broadcast_pair(split + 4), low_23 = broadcast_pair(split + 6);
            const __m256i a = load_two(rows[0] + at, rows[1] + at), b = load_two(rows[2] + at, rows[3] + at);
            add_taps(a, order_01, high_01, low_01, &high_a, &low_a);
            add_taps(b, order_01, high_01, low_01, &high_b, &low_b);
            add_taps(a, order_23, high_23, low_23, &high_a, &low_a);
            add_taps(b, order_23, high_23, low_23, &high_b, &low_b);
        }
        if (pairs % 2) {
            const __m256i high_01 = broadcast_pair(split), low_01 = broadcast_pair(split + 2);
            add_taps(load_two_halves(rows[0] + at, rows[1] + at), order_01, high_01, low_01, &high_a, &low_a);
            add_taps(load_two_halves(rows[2] + at, rows[3] + at), order_01, high_01, low_01, &high_b, &low_b);
        }
        const __m256i words = _mm256_packs_epi32(finish(high_a, low_a), finish(high_b, low_b));
        const __m256i bytes = _mm256_packus_epi16(words, words); /* rows 0 2 0 2 | 1 3 1 3 */
        const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
        store_pixel(out, _mm_cvtsi128_si32(even));
        store_pixel(out + out_stride, _mm_cvtsi128_si32(odd));
        store_pixel(out + 2 * out_stride, _mm_extract_epi32(even, 1));
        store_pixel(out + 3 * out_stride, _mm_extract_epi32(odd, 1));
    }
}

AVX2 static void horizontal(const lb_resize_axis *axis, const uint8_t *const rows[LB_RESIZE_ROWS], uint8_t *out,
                            size_t out_stride) {
    for (int row = 0; row < LB_RESIZE_ROWS; row += 4)
        horizontal_4(axis, rows + row, out + (size_t)row * out_stride, out_stride);
}

static const lb_resize_kernels kernels_avx2 = {.name = "avx2", .vertical = vertical, .horizontal = horizontal};

const lb_resize_kernels *lb_resize_kernels_avx2(void) {
    return __builtin_cpu_supports("avx2") ? &kernels_avx2 : NULL;
}

#else

const lb_resize_kernels *lb_resize_kernels_avx2(void) {
    return NULL;
}

#endif
