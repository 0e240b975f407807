/* Tokens, labels, sizes and detections on small cases worked out by hand; tests/checks/check_detector_pre.py compares
 * the same functions with transformers on many. */
#include "detector/labels.h"
#include "detector/postprocess.h"
#include "detector/preprocess.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ids:               0      1      2      3  4  5     6       7     8     9    10    11   12    13 14 */
static const char vocabulary[] = "[UNK]\n[CLS]\n[SEP]\n.\n,\ncar\ntaxi\ntraf\n##fic\nsign\n##s\nbien\nbao\n!\n信\n";

static lb_wordpiece *tokenizer;

static int set_up(void **state) {
    (void)state;
    return lb_wordpiece_from_vocab("vocab.txt", vocabulary, sizeof vocabulary - 1, &tokenizer, NULL) != LB_STATUS_OK;
}

static int tear_down(void **state) {
    (void)state;
    lb_wordpiece_free(tokenizer);
    return 0;
}

static void expect(const char *text, int n, const int32_t *id, const char *unknown) {
    lb_wordpiece_tokens tokens;
    lb_error error = {0};
    if (lb_wordpiece_encode(tokenizer, text, &tokens, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    if ((int)tokens.n != n)
        fail_msg("'%s': %zu tokens, expected %d", text, tokens.n, n);
    for (int i = 0; i < n; i++)
        if (tokens.id[i] != id[i])
            fail_msg("'%s': token %d is %d, expected %d", text, i, tokens.id[i], id[i]);
    if (unknown)
        assert_string_equal(tokens.unknown ? tokens.unknown : "", unknown);
    else
        assert_null(tokens.unknown);
    lb_wordpiece_tokens_free(&tokens);
}

static void test_encode(void **state) {
    (void)state;
    expect("", 0, NULL, NULL);
    expect(" \t\n", 0, NULL, NULL);
    expect("traffic signs", 4, (int32_t[]){7, 8, 9, 10}, NULL);
    expect("TRAFFIC,Signs.", 6, (int32_t[]){7, 8, 4, 9, 10, 3}, NULL);
    expect("bi\xE1\xBB\x83n b\xC3\xA1o", 2, (int32_t[]){11, 12}, NULL);       /* biển báo, composed */
    expect("bie\xCC\x82\xCC\x89n ba\xCC\x81o", 2, (int32_t[]){11, 12}, NULL); /* and decomposed */
    expect("car\xE4\xBF\xA1taxi", 3, (int32_t[]){5, 14, 6}, NULL);            /* a Chinese character is a word */
    expect("c\xC2\xAD"
           "ar\xE2\x80\x8B",
           1, (int32_t[]){5}, NULL); /* soft hyphen, zero-width space */
    expect("bus car lorry", 3, (int32_t[]){0, 5, 0}, "bus, lorry");
    expect("carx", 1, (int32_t[]){0}, "carx");
    char longest[110];
    memset(longest, 's', sizeof longest);
    longest[101] = 0;
    expect(longest, 1, (int32_t[]){0}, longest);
    lb_wordpiece_tokens tokens;
    lb_error error = {0};
    assert_int_equal(lb_wordpiece_encode(tokenizer, "car \xFF", &tokens, &error), LB_STATUS_FORMAT);
    assert_null(tokens.id);
}

static void test_decode(void **state) {
    (void)state;
    char *text;
    assert_int_equal(lb_wordpiece_decode(tokenizer, (int32_t[]){8, 7, 8, 3, 5, 13, 2}, 7, &text, NULL), LB_STATUS_OK);
    assert_string_equal(text, "##fic traffic. car! [SEP]");
    free(text);
    assert_int_equal(lb_wordpiece_decode(tokenizer, NULL, 0, &text, NULL), LB_STATUS_OK);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(lb_wordpiece_decode(tokenizer, (int32_t[]){15}, 1, &text, NULL), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_wordpiece_decode(tokenizer, (int32_t[]){-1}, 1, &text, NULL), LB_STATUS_INVALID_ARGUMENT);
}

static void test_vocabulary(void **state) {
    (void)state;
    lb_wordpiece *other;
    lb_error error = {0};
    assert_int_equal(lb_wordpiece_from_vocab("v", "", 0, &other, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_wordpiece_from_vocab("v", "[UNK]\0\n", 7, &other, &error), LB_STATUS_FORMAT);
    assert_int_equal(lb_wordpiece_from_vocab("v", "[UNK]\n[CLS]\n.\n", 14, &other, &error), LB_STATUS_FORMAT);
    assert_non_null(strstr(error.message, "[SEP]"));
    static const char windows[] = "[UNK]\r\n[CLS]\r\n[SEP]\r\n.";
    assert_int_equal(lb_wordpiece_from_vocab("v", windows, sizeof windows - 1, &other, &error), LB_STATUS_OK);
    assert_int_equal(lb_wordpiece_n(other), 4);
    assert_int_equal(lb_wordpiece_find(other, "."), 3);
    assert_int_equal(lb_wordpiece_find(other, "car"), -1);
    lb_wordpiece_free(other);
}

static void refuse(const char *const *label, int n, int max_tokens, const char *says) {
    lb_labels *labels;
    lb_error error = {0};
    lb_status status = lb_labels_create(tokenizer, label, n, max_tokens, &labels, &error);
    if (status == LB_STATUS_OK || labels || !strstr(error.message, says))
        fail_msg("expected '%s', got %s: %s", says, lb_status_name(status), error.message);
}

static void test_labels(void **state) {
    (void)state;
    lb_labels *l;
    lb_error error = {0};
    const char *const label[] = {" Car ", "Traffic Signs", "bus"};
    if (lb_labels_create(tokenizer, label, 3, 12, &l, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    const int32_t expected[] = {1, 5, 3, 7, 8, 9, 10, 3, 0, 3, 2};
    assert_int_equal(l->n_tokens, 11);
    assert_memory_equal(l->token, expected, sizeof expected);
    assert_string_equal(l->text, "car. traffic signs. bus.");
    assert_string_equal(l->label[0], "Car");
    assert_string_equal(l->unknown, "bus");
    assert_int_equal(l->first[1], 3);
    assert_int_equal(l->end[1], 7);
    lb_labels_free(l);
    assert_int_equal(lb_labels_create(tokenizer, label, 3, 11, &l, &error), LB_STATUS_OK);
    lb_labels_free(l);
    refuse(label, 3, 10, "10 tokens");
    refuse(label, 3, 4, "4 tokens");
    refuse(label, 0, 256, "0 of them");
    refuse((const char *const[]){"car", " "}, 2, 256, "label 2 is empty");
    refuse((const char *const[]){"car. taxi"}, 1, 256, "a full stop");
    refuse((const char *const[]){"\xC2\xAD"}, 1, 256, "nothing is left");
    refuse((const char *const[]){"car", "\xC3"}, 2, 256, "not UTF-8");
    assert_int_equal(lb_labels_read(tokenizer, "no-such-file", 256, &l, &error), LB_STATUS_NOT_FOUND);
}

static void test_sizes(void **state) {
    (void)state;
    static const int cases[][4] = {{1920, 1080, 1333, 750}, {1080, 1920, 750, 1333}, {640, 480, 1066, 800},
                                   {800, 1333, 800, 1333},  {1, 1, 800, 800},        {2666, 1601, 1332, 800},
                                   {2666, 1599, 1333, 800}, {2666, 1597, 1333, 798}};
    lb_preprocess_params p = lb_preprocess_default_params();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int w, h;
        assert_int_equal(lb_preprocess_size(&p, cases[i][0], cases[i][1], &w, &h, NULL), LB_STATUS_OK);
        if (w != cases[i][2] || h != cases[i][3])
            fail_msg("%dx%d: %dx%d, expected %dx%d", cases[i][0], cases[i][1], w, h, cases[i][2], cases[i][3]);
    }
    int w, h;
    assert_int_equal(lb_preprocess_size(&p, 10000, 1, &w, &h, NULL), LB_STATUS_REFUSED);
    assert_int_equal(lb_preprocess_size(&p, 0, 1, &w, &h, NULL), LB_STATUS_INVALID_ARGUMENT);
    float table[3][256];
    lb_preprocess_table(&p, table);
    assert_true(fabsf(table[0][0] + 0.485f / 0.229f) < 1e-6f && fabsf(table[2][255] - 0.594f / 0.225f) < 1e-6f);
}

static float logit(double probability) {
    return (float)log(probability / (1 - probability));
}

static void test_detections(void **state) {
    (void)state;
    lb_labels *l;
    const char *const label[] = {"car", "taxi"};
    assert_int_equal(lb_labels_create(tokenizer, label, 2, 256, &l, NULL), LB_STATUS_OK);
    assert_int_equal(l->n_tokens, 6); /* [CLS] car . taxi . [SEP] */
    float logits[4][6];
    for (int q = 0; q < 4; q++)
        for (int k = 0; k < 6; k++)
            logits[q][k] = logit(0.01);
    logits[0][1] = logit(0.4), logits[0][3] = logit(0.6); /* both above the text threshold */
    logits[1][1] = logit(0.29);                           /* below the box threshold */
    logits[2][0] = logit(0.9), logits[2][1] = logit(0.2); /* the score is [CLS]'s, no text; label car all the same */
    logits[3][1] = logit(0.8);                            /* without area */
    const float boxes[4][4] = {{0.5f, 0.5f, 0.2f, 0.4f}, {0.5f, 0.5f, 1, 1}, {0, 0, 0.5f, 0.5f}, {0.5f, 0.5f, 0, 0}};
    lb_postprocess_params p = lb_postprocess_default_params();
    lb_detections d;
    lb_error error = {0};
    assert_int_equal(lb_postprocess(tokenizer, l, &p, logits[0], boxes[0], 4, 100, 200, &d, &error), LB_STATUS_OK);
    assert_int_equal(d.n, 3);
    assert_string_equal(d.item[0].raw_label, "car taxi");
    assert_int_equal(d.item[0].label, 1);
    assert_true(fabsf(d.item[0].score - 0.6f) < 1e-6f);
    assert_true(fabsf(d.item[0].box[0] - 40) < 1e-4f && fabsf(d.item[0].box[3] - 140) < 1e-4f);
    assert_int_equal(d.item[1].query, 2);
    assert_string_equal(d.item[1].raw_label, "");
    assert_int_equal(d.item[1].label, 0);
    int box[4];
    assert_true(lb_detection_pixels(&d.item[1], box));
    assert_int_equal(box[0], -25);
    lb_detections_drop_empty(&d);
    assert_int_equal(d.n, 2);
    assert_int_equal(d.n_empty, 1);
    lb_detections_free(&d);
    logits[1][2] = NAN;
    assert_int_equal(lb_postprocess(tokenizer, l, &p, logits[0], boxes[0], 4, 100, 200, &d, &error),
                     LB_STATUS_NOT_FINITE);
    assert_non_null(strstr(error.message, "query 1"));
    const lb_detection far = {.box = {-1e30f, 0, 1e30f, INFINITY}};
    assert_true(lb_detection_pixels(&far, box));
    lb_labels_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode), cmocka_unit_test(test_decode), cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_labels), cmocka_unit_test(test_sizes),  cmocka_unit_test(test_detections),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
