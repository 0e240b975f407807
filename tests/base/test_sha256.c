/* SHA-256 against FIPS 180-4's examples and sums of every length up to 200 that Python's hashlib gave; both ways agree.
 */
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_sum(const void *bytes, size_t n, size_t piece, const char *expected) {
    lb_sha256 hash;
    char hex[LB_SHA256_HEX];
    lb_sha256_init(&hash);
    for (size_t at = 0; at < n; at += piece)
        lb_sha256_add(&hash, (const char *)bytes + at, piece < n - at ? piece : n - at);
    lb_sha256_hex(&hash, hex);
    assert_string_equal(hex, expected);
}

static void test_examples(void **state) {
    (void)state;
    static const struct {
        const char *text, *sum;
    } examples[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqr"
         "s"
         "tu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        for (size_t piece = 1; piece < 130; piece += 9)
            assert_sum(examples[i].text, strlen(examples[i].text), piece, examples[i].sum);
}

static void test_million(void **state) {
    (void)state;
    char *text = malloc(1000000);
    memset(text, 'a', 1000000);
    static const size_t pieces[] = {1, 63, 64, 65, 4096, 1000000};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        assert_sum(text, 1000000, pieces[i], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(text);
}

/* hashlib's sum of the sums of n bytes of value n, n from 0 to 200, as hexadecimal one after another. */
static void test_lengths(void **state) {
    (void)state;
    lb_sha256 all;
    lb_sha256_init(&all);
    for (int n = 0; n <= 200; n++) {
        uint8_t bytes[200];
        char hex[LB_SHA256_HEX];
        lb_sha256 one;
        memset(bytes, n, sizeof bytes);
        lb_sha256_init(&one);
        lb_sha256_add(&one, bytes, (size_t)n);
        lb_sha256_hex(&one, hex);
        lb_sha256_add(&all, hex, 64);
    }
    char hex[LB_SHA256_HEX];
    lb_sha256_hex(&all, hex);
    assert_string_equal(hex, "32bf3dfd680d6eec35c7e7faa2afb75b13290ffd987b0a324736d2d0bc1bcf13");
}

static void test_both_ways(void **state) {
    (void)state;
    if (!lb_sha256_has_instructions()) {
        print_message("skipped: this processor has no SHA instructions\n");
        skip();
    }
    uint8_t bytes[7 * LB_SHA256_BLOCK];
    uint32_t x = 1;
    for (int round = 0; round < 200; round++) {
        uint32_t plain[8], fast[8];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
        for (int i = 0; i < 8; i++)
            plain[i] = fast[i] = x = x * 1664525 + 1013904223;
        lb_sha256_blocks_plain(plain, bytes, 7);
        lb_sha256_blocks_fast(fast, bytes, 7);
        assert_memory_equal(plain, fast, sizeof plain);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_million),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
