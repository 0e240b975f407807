/* What the detector computes on the host: phrases, sizes of levels, padding, the choice of queries. Its graphs are
 * compared with transformers in tests/checks/check_detector.py. */
#include "detector/model_internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLS = 101, SEP = 102, STOP = 1012, QUESTION = 1029 };
static const int32_t special[4] = {CLS, SEP, STOP, QUESTION};

static void test_phrases(void **state) {
    (void)state;
    const int32_t tokens[] = {CLS, 7, 8, STOP, 9, QUESTION, STOP, 10, SEP};
    enum { N = sizeof tokens / sizeof *tokens };
    uint8_t mask[N * N];
    int32_t position[N];
    lb_gdino_phrases(tokens, N, special, mask, position);
    /* '10' is closed by the last token alone: no phrase, so it sees itself only, at position 0 */
    const int32_t expected[N] = {0, 0, 1, 2, 0, 1, 0, 0, 0};
    const int phrase[N] = {0, 1, 1, 1, 2, 2, 3, 4, 5}; /* 0, 4, 5: nobody else's */
    for (int i = 0; i < N; i++) {
        assert_int_equal(position[i], expected[i]);
        for (int k = 0; k < N; k++)
            assert_int_equal(mask[i * N + k], phrase[i] == phrase[k]);
    }
}

static void test_phrases_without_any(void **state) {
    (void)state;
    const int32_t tokens[] = {7, 8, 9};
    uint8_t mask[9];
    int32_t position[3];
    lb_gdino_phrases(tokens, 3, special, mask, position);
    for (int i = 0; i < 9; i++)
        assert_int_equal(mask[i], i % 4 == 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(position[i], 0);
}

static lb_gdino_hparams tiny_hparams(void) {
    lb_gdino_hparams hp = {.d_model = 256, .num_queries = 900, .num_feature_levels = 4};
    hp.encoder_attention_heads = hp.decoder_attention_heads = 8;
    hp.swin = (lb_swin_hparams){.embed_dim = 96, .window_size = 7, .patch_size = 4, .n_stages = 4, .n_out = 3};
    for (int i = 0; i < 3; i++)
        hp.swin.out_indices[i] = i + 2;
    return hp;
}

/* What transformers gives for a frame of 1920x1080, resized to 1333x749 or 750 rows. */
static void test_levels(void **state) {
    (void)state;
    const lb_gdino_hparams hp = tiny_hparams();
    lb_gdino_geometry geometry;
    const int size[] = {1333, 750};
    assert_int_equal(lb_gdino_geometry_make(&hp, size, 1, &geometry, NULL), LB_STATUS_OK);
    const int expected[4][2] = {{167, 94}, {84, 47}, {42, 24}, {21, 12}};
    int start = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(geometry.level[i].width, expected[i][0]);
        assert_int_equal(geometry.level[i].height, expected[i][1]);
        assert_int_equal(geometry.level[i].start, start);
        assert_int_equal(lb_gdino_valid(&geometry, i, 0, 0), expected[i][0]);
        assert_int_equal(lb_gdino_valid(&geometry, i, 0, 1), expected[i][1]);
        start += expected[i][0] * expected[i][1];
    }
    assert_int_equal(geometry.n_tokens, start);
    assert_false(geometry.padded);
}

static void test_padding(void **state) {
    (void)state;
    const lb_gdino_hparams hp = tiny_hparams();
    lb_gdino_geometry geometry;
    const int size[] = {800, 600, 1066, 400};
    assert_int_equal(lb_gdino_geometry_make(&hp, size, 2, &geometry, NULL), LB_STATUS_OK);
    assert_true(geometry.padded);
    assert_int_equal(geometry.width, 1066);
    assert_int_equal(geometry.height, 600);
    /* torch: interpolate(mask, size) keeps column i where floor(i * 1066 / 134) < 800: 100.56 and less */
    assert_int_equal(geometry.level[0].width, 134);
    assert_int_equal(lb_gdino_valid(&geometry, 0, 0, 0), 101);
    assert_int_equal(lb_gdino_valid(&geometry, 0, 0, 1), geometry.level[0].height);
    assert_int_equal(lb_gdino_valid(&geometry, 0, 1, 0), 134);
    assert_int_equal(lb_gdino_valid(&geometry, 0, 1, 1), 50);
}

static void test_sizes_refused(void **state) {
    (void)state;
    const lb_gdino_hparams hp = tiny_hparams();
    lb_gdino_geometry geometry;
    const int bad[][2] = {{0, 10}, {-1, 5}, {64, 64}, {8193, 800}, {800, 8193}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lb_error error = {0};
        assert_int_equal(lb_gdino_geometry_make(&hp, bad[i], 1, &geometry, &error), LB_STATUS_INVALID_ARGUMENT);
        assert_true(strlen(error.message) > 10);
    }
}

static void test_top(void **state) {
    (void)state;
    const float scores[] = {0.5f, -1, 3, 3, 0.5f, 2};
    int32_t index[5];
    assert_int_equal(lb_gdino_top(scores, 6, 5, index, NULL), LB_STATUS_OK);
    const int32_t expected[] = {2, 3, 5, 0, 4};
    for (int i = 0; i < 5; i++)
        assert_int_equal(index[i], expected[i]);
    const float damaged[] = {1, NAN, 2}, infinite[] = {1, 2, INFINITY};
    lb_error error = {0};
    assert_int_equal(lb_gdino_top(damaged, 3, 2, index, &error), LB_STATUS_NOT_FINITE);
    assert_int_equal(lb_gdino_top(infinite, 3, 2, index, &error), LB_STATUS_NOT_FINITE);
}

static void test_proposals(void **state) {
    (void)state;
    const lb_gdino_hparams hp = tiny_hparams();
    lb_gdino_geometry geometry;
    const int size[] = {800, 600, 1066, 400};
    assert_int_equal(lb_gdino_geometry_make(&hp, size, 2, &geometry, NULL), LB_STATUS_OK);
    const int inside = 20 * 134 + 50, edge = 20 * 134, padding = 20 * 134 + 120;
    const int32_t index[] = {inside, edge, padding};
    float logits[12], keep[3];
    lb_gdino_proposals(&geometry, 0, index, 3, logits, keep);
    assert_true(keep[0] == 1 && keep[1] == 0 && keep[2] == 0);
    const double expected[4] = {50.5 / 101, 20.5 / geometry.level[0].height, 0.05, 0.05};
    for (int k = 0; k < 4; k++) {
        double p = 1 / (1 + exp(-(double)logits[k]));
        assert_true(fabs(p - expected[k]) < 1e-6); /* f32 of a number below 1 */
        assert_true(isinf(logits[4 + k]) && logits[4 + k] > 0);
        assert_true(isinf(logits[8 + k]) && logits[8 + k] > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phrases),       cmocka_unit_test(test_phrases_without_any),
        cmocka_unit_test(test_levels),        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_top),           cmocka_unit_test(test_proposals),
        cmocka_unit_test(test_sizes_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
