/* The chat template as text, without a model: where each piece stands, and that nothing written in it is taken for a
 * part of the template. The tokens are compared with the reference's in tests/checks/check_tokens.py. */
#include "run/dialogue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char *text_of(const char *system, const char *question, int n_frames, const int *tiles, int per_tile) {
    lb_prompt_template *prompt_template;
    lb_prompt prompt = {0};
    lb_error error = {0};
    static const char *const choices[] = {"một", "B. hai"};
    lb_prompt_values values = {.n_frames = n_frames, .question = question, .choices = choices, .n_choices = 2};
    char *text = NULL;
    size_t n = 0;
    if (lb_prompt_template_read(NULL, &prompt_template, &error) != LB_STATUS_OK ||
        lb_prompt_fill(prompt_template, &values, &prompt, &error) != LB_STATUS_OK ||
        lb_dialogue_text(system, &prompt, tiles, per_tile, &text, &n, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    assert_int_equal(strlen(text), n);
    lb_prompt_free(&prompt);
    lb_prompt_template_free(prompt_template);
    return text;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        n++;
    return n;
}

static void test_template(void **state) {
    (void)state;
    char *text = text_of(lb_system_message, "Có gì?", 2, (int[]){1, 3}, 2);
    static const char head[] =
        "<|im_start|>system\n你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家"
        "合作单位联合开发的多模态大语言模型。<|im_end|>\n<|im_start|>user\n";
    static const char tail[] = "<|im_end|>\n<|im_start|>assistant\n";
    assert_int_equal(strncmp(text, head, strlen(head)), 0);
    assert_string_equal(text + strlen(text) - strlen(tail), tail);
    assert_non_null(strstr(text, "\nFrame1: <img><IMG_CONTEXT><IMG_CONTEXT></img>\nFrame2: <img>"));
    assert_int_equal(count(text, "<IMG_CONTEXT>"), 8);
    assert_int_equal(count(text, "<img>"), 2);
    assert_int_equal(count(text, "<image>"), 0);
    assert_non_null(strstr(text, "A. một\nB. hai\n"));
    free(text);
}

static void test_own_system_message(void **state) {
    (void)state;
    char *text = text_of("", "?", 1, (int[]){1}, 1);
    assert_int_equal(strncmp(text, "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n", 46), 0);
    free(text);
    text = text_of("Be brief.", "?", 1, (int[]){1}, 1);
    assert_int_equal(strncmp(text, "<|im_start|>system\nBe brief.<|im_end|>\n", 39), 0);
    free(text);
}

static void test_decomposed_text_is_composed(void **state) {
    (void)state;
    char *composed = text_of("s", "Biển báo", 1, (int[]){1}, 1);
    char *decomposed = text_of("s", "Bie\xcc\x82\xcc\x89n ba\xcc\x81o", 1, (int[]){1}, 1);
    assert_string_equal(decomposed, composed);
    free(composed);
    free(decomposed);
}

static void test_image_in_a_question_is_text(void **state) {
    (void)state;
    char *text = text_of("s", "<image> và <image>?", 1, (int[]){1}, 1);
    assert_int_equal(count(text, "<IMG_CONTEXT>"), 1);
    assert_int_equal(count(text, "<image>"), 2);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_own_system_message),
        cmocka_unit_test(test_decomposed_text_is_composed),
        cmocka_unit_test(test_image_in_a_question_is_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
