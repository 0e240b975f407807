/* Templates: the built-in ones, what is refused, what is left out, where the pictures stand. */
#include "answer/prompt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static lb_status read_bytes(const char *bytes, size_t n, lb_prompt_template **made, lb_error *error) {
    char path[] = "/tmp/lowbeam-prompt-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
    lb_status status = lb_prompt_template_read(path, made, error);
    if (status != LB_STATUS_OK) { /* the file's random name is taken off */
        assert_int_equal(strncmp(error->message, path, strlen(path)), 0);
        memmove(error->message, error->message + strlen(path), strlen(error->message + strlen(path)) + 1);
    }
    unlink(path);
    return status;
}

static lb_prompt_template *read_text(const char *text) {
    lb_prompt_template *made;
    lb_error error;
    if (read_bytes(text, strlen(text), &made, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return made;
}

static const char *const CHOICES[] = {"A. Có", "Không", "c) Cả hai"};
static const char *const FOUND[] = {"2 (car, stop sign)", NULL};
static const char *const NOTHING_FOUND[] = {NULL, ""};

static lb_prompt_values values_of(const char *question, const char *const *detections) {
    return (lb_prompt_values){
        .n_frames = 2, .detections = detections, .question = question, .choices = CHOICES, .n_choices = 3};
}

/* Parts cover the text without a gap, and pictures are where frames say. */
static void assert_parts(const lb_prompt *prompt, int n_frames) {
    size_t end = 0;
    int frame = 0;
    for (size_t i = 0; i < prompt->n_parts; i++) {
        const lb_prompt_part *part = &prompt->part[i];
        assert_int_equal(part->offset, end);
        assert_true(part->length > 0);
        end += part->length;
        if (part->frame < 0)
            continue;
        assert_int_equal(part->frame, frame++);
        assert_int_equal(part->length, 7);
        assert_memory_equal(prompt->text + part->offset, "<image>", 7);
    }
    assert_int_equal(end, strlen(prompt->text));
    assert_int_equal(frame, n_frames);
}

static void assert_filled(const char *text, const char *question, const char *const *detections, const char *expected) {
    lb_prompt_template *made = read_text(text);
    lb_prompt prompt;
    lb_error error;
    lb_prompt_values values = values_of(question, detections);
    if (lb_prompt_fill(made, &values, &prompt, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    assert_string_equal(prompt.text, expected);
    assert_parts(&prompt, 2);
    lb_prompt_free(&prompt);
    lb_prompt_template_free(made);
}

static void test_fill(void **state) {
    (void)state;
    assert_filled("{frames}\n{question}\n{choices}\n", "Có gì?", NULL,
                  "Frame1: <image>\nFrame2: <image>\nCó gì?\nA. Có\nB. Không\nc) Cả hai");
    /* values are not looked into for placeholders */
    assert_filled("{question}{frames}{choices}", "{frames} {{ {choices}", NULL,
                  "{frames} {{ {choices}Frame1: <image>\nFrame2: <image>A. Có\nB. Không\nc) Cả hai");
    /* braces, a byte order mark, CRLF, blank lines at the end, a placeholder twice */
    assert_filled("\xEF\xBB\xBF{{\"a\": {{}}}}\r\n{frames}\r\n{question}|{question}\r\n \t\r\n{choices}\r\n\r\n  \r\n",
                  "q", NULL, "{\"a\": {}}\nFrame1: <image>\nFrame2: <image>\nq|q\n\nA. Có\nB. Không\nc) Cả hai");
}

static void test_detections(void **state) {
    (void)state;
    const char *middle = "Rules\n\n\nFound {{by it}}:\n{detections}\nend\n \n{frames}\n\n{question}\n{choices}\n";
    const char *without = "Rules\n\n\nFrame1: <image>\nFrame2: <image>\n\nq\nA. Có\nB. Không\nc) Cả hai";
    assert_filled(
        middle, "q", FOUND,
        "Rules\n\n\nFound {by it}:\nFrame1: 2 (car, stop sign)\nend\n\nFrame1: <image>\nFrame2: <image>\n\nq\n"
        "A. Có\nB. Không\nc) Cả hai");
    assert_filled(middle, "q", NULL, without);
    assert_filled(middle, "q", NOTHING_FOUND, without);
    /* first and last in the file */
    assert_filled("{detections}\n\n{frames}{question}{choices}", "q", NULL,
                  "Frame1: <image>\nFrame2: <image>qA. Có\nB. Không\nc) Cả hai");
    assert_filled("{frames}{question}{choices}.\n\n\nFound:\n{detections}\n", "q", NULL,
                  "Frame1: <image>\nFrame2: <image>qA. Có\nB. Không\nc) Cả hai.");
    /* the picture's word within a label is text */
    const char *const odd[] = {"1 (<image>)", "1 ({frames})"};
    assert_filled(
        "{detections}\n\n{frames}{question}{choices}", "q", odd,
        "Frame1: 1 (<image>)\nFrame2: 1 ({frames})\n\nFrame1: <image>\nFrame2: <image>qA. Có\nB. Không\nc) Cả "
        "hai");
}

static void test_pictures_as_text(void **state) {
    (void)state;
    lb_prompt_template *made = read_text("<image> {frames}\n{question}{choices}");
    lb_prompt prompt;
    lb_prompt_values values = values_of("Frame1: <image>?", NULL);
    assert_int_equal(lb_prompt_fill(made, &values, &prompt, NULL), LB_STATUS_OK);
    assert_parts(&prompt, 2);
    assert_int_equal(prompt.n_parts, 5);
    assert_int_equal(prompt.part[0].length, strlen("<image> Frame1: "));
    assert_int_equal(prompt.part[1].frame, 0);
    lb_prompt_free(&prompt);
    lb_prompt_template_free(made);
}

/* Everything before the question is the same for all questions of a video, in both templates that ship. */
static void test_shipped(void **state) {
    (void)state;
    const char *paths[] = {NULL, "../../prompts/vi.txt", "../../prompts/en.txt"};
    char *built_in = NULL;
    for (int i = 0; i < 3; i++) {
        lb_prompt_template *made;
        lb_error error;
        if (lb_prompt_template_read(paths[i], &made, &error) != LB_STATUS_OK)
            fail_msg("%s", error.message);
        assert_true(lb_prompt_template_frames_first(made));
        if (!i)
            built_in = strdup(lb_prompt_template_text(made));
        else
            assert_int_equal(!strcmp(built_in, lb_prompt_template_text(made)), i == 1);
        lb_prompt one, other;
        lb_prompt_values values = values_of("Biển báo nào?", FOUND);
        assert_int_equal(lb_prompt_fill(made, &values, &one, NULL), LB_STATUS_OK);
        values.question = "Xe nào?";
        assert_int_equal(lb_prompt_fill(made, &values, &other, NULL), LB_STATUS_OK);
        const char *question = strstr(one.text, "Biển báo nào?"), *picture = strstr(one.text, "Frame2: <image>");
        assert_true(picture && picture < question);
        assert_memory_equal(one.text, other.text, question - one.text);
        assert_non_null(strstr(one.text, "Frame1: 2 (car, stop sign)\n\n"));
        assert_non_null(strstr(question, "A. Có\nB. Không\nc) Cả hai\n"));
        assert_true(question > one.text && !strpbrk(one.text, "{}"));
        lb_prompt_free(&one);
        lb_prompt_free(&other);
        values.detections = NULL;
        assert_int_equal(lb_prompt_fill(made, &values, &one, NULL), LB_STATUS_OK);
        assert_null(strstr(one.text, "car"));
        assert_null(strstr(one.text, "detector"));
        assert_null(strstr(one.text, "bộ phát hiện"));
        assert_null(strstr(one.text, "\n\n\n"));
        lb_prompt_free(&one);
        lb_prompt_template_free(made);
    }
    free(built_in);
    lb_prompt_template *made = read_text("{question} {frames} {choices}");
    assert_false(lb_prompt_template_frames_first(made));
    lb_prompt_template_free(made);
}

#define REFUSED(text, expected) assert_refused(text, sizeof(text) - 1, expected)

static void assert_refused(const char *bytes, size_t n, const char *expected) {
    lb_prompt_template *made;
    lb_error error;
    assert_int_equal(read_bytes(bytes, n, &made, &error), LB_STATUS_FORMAT);
    assert_null(made);
    assert_string_equal(error.message, expected);
}

#define NONE_OF " is none of {detections}, {frames}, {question}, {choices}; write '{{' for a brace"

static void test_refused(void **state) {
    (void)state;
    REFUSED("", ": line 1: the file ends without {frames}");
    REFUSED("\n{frames}\n{choices}\nx", ": line 4: the file ends without {question}");
    REFUSED("{frames}{question}", ": line 1: the file ends without {choices}");
    REFUSED("{frames}\n{question}\n{frames}{choices}", ": line 3: {frames} a second time");
    REFUSED("{detections}\n{detections}", ": line 2: {detections} a second time");
    REFUSED("a\n{frame}", ": line 2: '{frame}'" NONE_OF);
    REFUSED("{ frames }", ": line 1: '{ frames }'" NONE_OF);
    REFUSED("{frames", ": line 1: '{frames'" NONE_OF);
    REFUSED("{", ": line 1: '{'" NONE_OF);
    REFUSED("a }\n", ": line 1: a '}' without its '{'; write '}}' for a brace");
    REFUSED("{{frames}", ": line 1: a '}' without its '{'; write '}}' for a brace");
    REFUSED("{detections}\n{frames}\n\n{question}{choices}",
            ": line 2: {frames} in one paragraph with {detections}, which is left out where nothing is detected; part "
            "them by a blank line");
    REFUSED("a\nb\xe1\xbb", ": line 2: byte 0xe1 is not UTF-8; save the file as UTF-8");
    REFUSED("a\nb\0", ": line 2: a NUL byte");
    lb_prompt_template *made;
    lb_error error;
    assert_int_equal(lb_prompt_template_read("no/such.txt", &made, &error), LB_STATUS_NOT_FOUND);
    assert_string_equal(error.message, "no/such.txt: No such file or directory");
    assert_int_equal(lb_prompt_template_read("/dev/zero", &made, &error), LB_STATUS_REFUSED);
    lb_prompt_template_free(NULL);
    lb_prompt_free(NULL);
}

static void test_values(void **state) {
    (void)state;
    lb_prompt_template *made = read_text("{frames}{question}{choices}");
    lb_prompt prompt;
    lb_error error;
    lb_prompt_values values = values_of("q", NULL);
    values.n_choices = 9;
    assert_int_equal(lb_prompt_fill(made, &values, &prompt, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_null(prompt.text);
    values = values_of("q", NULL);
    values.n_frames = 0;
    assert_int_equal(lb_prompt_fill(made, &values, &prompt, &error), LB_STATUS_INVALID_ARGUMENT);
    values = values_of("q\xff", NULL);
    assert_int_equal(lb_prompt_fill(made, &values, &prompt, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_string_equal(error.message, "the question is not UTF-8");
    /* long ones */
    size_t n = 300000;
    char *question = malloc(n + 1);
    memset(question, 'x', n);
    question[n] = 0;
    values = values_of(question, NULL);
    values.n_frames = 1000;
    assert_int_equal(lb_prompt_fill(made, &values, &prompt, &error), LB_STATUS_OK);
    assert_parts(&prompt, 1000);
    lb_prompt_free(&prompt);
    free(question);
    lb_prompt_template_free(made);
}

/* Whatever the bytes: a template or an error. */
static void test_damaged(void **state) {
    (void)state;
    const char *text = "R {{x}}\n\n D:\n{detections}\n\n{frames}\n{question}\n{choices}\n";
    size_t n = strlen(text), good = 0;
    char bytes[128];
    srand(1);
    for (int i = 0; i < 3000; i++) {
        memcpy(bytes, text, n);
        for (int k = rand() % 4; k; k--)
            bytes[rand() % (int)n] = (char)(rand() % 3 ? "{}\n\r "[rand() % 5] : rand());
        lb_prompt_template *made;
        lb_error error;
        if (read_bytes(bytes, i % 8 ? n : (size_t)rand() % n, &made, &error) != LB_STATUS_OK)
            continue;
        good++;
        lb_prompt prompt;
        lb_prompt_values values = values_of("q", i % 2 ? FOUND : NULL);
        assert_int_equal(lb_prompt_fill(made, &values, &prompt, NULL), LB_STATUS_OK);
        assert_parts(&prompt, 2);
        lb_prompt_free(&prompt);
        lb_prompt_template_free(made);
    }
    assert_true(good > 300 && good < 3000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill),    cmocka_unit_test(test_detections), cmocka_unit_test(test_pictures_as_text),
        cmocka_unit_test(test_shipped), cmocka_unit_test(test_refused),    cmocka_unit_test(test_values),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests_name("prompt", tests, NULL, NULL);
}
