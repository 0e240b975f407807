#include "base/sha256.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

void lb_sha256_blocks_plain(uint32_t *state, const uint8_t *bytes, size_t n_blocks) {
    for (; n_blocks; n_blocks--, bytes += LB_SHA256_BLOCK) {
        uint32_t w[64], s[8];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16 | (uint32_t)bytes[4 * i + 2] << 8 |
                   bytes[4 * i + 3];
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
                   (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(s, state, sizeof s);
        /* Instead of moving a to h on by one each round, the names move: a is s[0], s[7], s[6], ... */
#pragma GCC unroll 8
        for (int i = 0; i < 64; i++) {
            uint32_t a = s[-i & 7], b = s[(1 - i) & 7], c = s[(2 - i) & 7], *d = &s[(3 - i) & 7];
            uint32_t e = s[(4 - i) & 7], f = s[(5 - i) & 7], g = s[(6 - i) & 7], *h = &s[(7 - i) & 7];
            uint32_t t1 = *h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
            *d += t1;
            *h = t1 + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        }
        for (int i = 0; i < 8; i++)
            state[i] += s[i];
    }
}

#if defined(__x86_64__)
int lb_sha256_has_instructions(void) {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("sse4.1") || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b & bit_SHA) != 0;
}

/* The instructions keep the state as two registers of {f, e, b, a} and {h, g, d, c} (lowest first); sha256rnds2 does
 * two rounds, msg1 and msg2 the schedule of four further words. */
__attribute__((target("sha,sse4.1"))) void lb_sha256_blocks_fast(uint32_t *state, const uint8_t *bytes,
                                                                 size_t n_blocks) {
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef = _mm_setr_epi32((int)state[5], (int)state[4], (int)state[1], (int)state[0]);
    __m128i cdgh = _mm_setr_epi32((int)state[7], (int)state[6], (int)state[3], (int)state[2]);
    for (; n_blocks; n_blocks--, bytes += LB_SHA256_BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(bytes + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i next = w[i % 4];
            if (i >= 4) {
                /* w[t] = s1(w[t-2]) + w[t-7] + s0(w[t-15]) + w[t-16], for four t at once */
                next = _mm_sha256msg1_epu32(next, w[(i + 1) % 4]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4));
                next = _mm_sha256msg2_epu32(next, w[(i + 3) % 4]);
                w[i % 4] = next;
            }
            __m128i sum = _mm_add_epi32(next, _mm_loadu_si128((const __m128i *)(const void *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    uint32_t low[4], high[4];
    _mm_storeu_si128((__m128i *)(void *)low, abef);
    _mm_storeu_si128((__m128i *)(void *)high, cdgh);
    const uint32_t out[8] = {low[3], low[2], high[3], high[2], low[1], low[0], high[1], high[0]};
    memcpy(state, out, sizeof out);
}
#else
int lb_sha256_has_instructions(void) {
    return 0;
}
void lb_sha256_blocks_fast(uint32_t *state, const uint8_t *bytes, size_t n_blocks) {
    lb_sha256_blocks_plain(state, bytes, n_blocks);
}
#endif

static void add_blocks(lb_sha256 *hash, const uint8_t *bytes, size_t n_blocks) {
    if (lb_sha256_has_instructions())
        lb_sha256_blocks_fast(hash->state, bytes, n_blocks);
    else
        lb_sha256_blocks_plain(hash->state, bytes, n_blocks);
}

void lb_sha256_init(lb_sha256 *hash) {
    /* of the square roots of the first 8 primes */
    *hash = (lb_sha256){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void lb_sha256_add(lb_sha256 *hash, const void *bytes, size_t n) {
    const uint8_t *at = bytes;
    size_t used = hash->n_bytes % LB_SHA256_BLOCK;
    hash->n_bytes += n;
    if (used + n >= LB_SHA256_BLOCK) {
        if (used) {
            memcpy(hash->rest + used, at, LB_SHA256_BLOCK - used);
            add_blocks(hash, hash->rest, 1);
            at += LB_SHA256_BLOCK - used;
            n -= LB_SHA256_BLOCK - used;
            used = 0;
        }
        if (n >= LB_SHA256_BLOCK)
            add_blocks(hash, at, n / LB_SHA256_BLOCK);
        at += n / LB_SHA256_BLOCK * LB_SHA256_BLOCK;
        n %= LB_SHA256_BLOCK;
    }
    if (n)
        memcpy(hash->rest + used, at, n);
}

void lb_sha256_add_text(lb_sha256 *hash, const char *text) {
    lb_sha256_add(hash, text, strlen(text) + 1);
}

void lb_sha256_hex(lb_sha256 *hash, char *hex) {
    static const uint8_t padding[LB_SHA256_BLOCK] = {0x80};
    const uint64_t n_bits = 8 * hash->n_bytes;
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(n_bits >> (56 - 8 * i));
    const size_t used = hash->n_bytes % LB_SHA256_BLOCK;
    lb_sha256_add(hash, padding, (used < 56 ? 56 : 120) - used);
    lb_sha256_add(hash, length, sizeof length);
    for (int i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08x", hash->state[i]);
}
