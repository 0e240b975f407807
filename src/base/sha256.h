/* SHA-256 (FIPS 180-4), for fingerprints of files.
 *
 *     lb_sha256 hash;
 *     lb_sha256_init(&hash);
 *     lb_sha256_add(&hash, bytes, n);           // as often as needed
 *     char hex[LB_SHA256_HEX];
 *     lb_sha256_hex(&hash, hex);                // ends it
 *
 * With the SHA instructions of a processor ten times as fast as without. Nothing fails.
 */
#ifndef LB_BASE_SHA256_H
#define LB_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { LB_SHA256_HEX = 65, LB_SHA256_BLOCK = 64 }; /* 64 hexadecimal digits and the NUL */

typedef struct lb_sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t rest[LB_SHA256_BLOCK]; /* the block that is not full yet, n_bytes % 64 of it */
} lb_sha256;

void lb_sha256_init(lb_sha256 *hash);
void lb_sha256_add(lb_sha256 *hash, const void *bytes, size_t n);

/* The text with its NUL after it, so that "ab","c" and "a","bc" differ. */
void lb_sha256_add_text(lb_sha256 *hash, const char *text);

/* hex: [LB_SHA256_HEX], lower case. */
void lb_sha256_hex(lb_sha256 *hash, char *hex);

/* For the tests: whether this processor has the instructions, and blocks by either way. */
int lb_sha256_has_instructions(void);
void lb_sha256_blocks_plain(uint32_t *state, const uint8_t *bytes, size_t n_blocks);
void lb_sha256_blocks_fast(uint32_t *state, const uint8_t *bytes, size_t n_blocks); /* only where it has them */

#endif
