/* Letters out of texts, rule by rule; white space, broken UTF-8, normal form. */
#include "answer/letter.h"
#include "base/time.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* 'A' to 'H'; 0: no letter. */
static const struct {
    const char *text;
    int n_choices;
    char letter;
} cases[] = {
    /* 1: the text begins with it */
    {"A", 4, 'A'},
    {"b", 4, 'B'},
    {"a)", 4, 'A'},
    {"C.", 4, 'C'},
    {"D. Cấm dừng", 4, 'D'},
    {"B, vì biển báo A. là cấm", 4, 'B'},
    {"(B)", 4, 'B'}, /* does not begin with a letter: rule 3 */
    {"A person, then C.", 4, 'A'},
    {"**C**", 4, 'C'},
    {"\"d\".", 4, 0}, /* small, and the quote stands between it and the dot */
    {"B\nA", 4, 'B'},
    {"C…", 4, 'C'},
    /* ... unless a letter, digit or underscore of any script follows */
    {"Biển báo trong video là C.", 4, 'C'},
    {"Dừng lại", 4, 0},
    {"Cả hai: B", 4, 'B'},
    {"A1 là biển nào? D", 4, 'D'},
    {"A_x B", 4, 'B'},
    {"Aж, B", 4, 'B'},
    {"A中 B", 4, 'B'},
    {"A٣ B", 4, 'B'}, /* an Arabic digit */
    {"A² B", 4, 'B'},
    {"AⅣ B", 4, 'B'},
    {"A。B", 4, 'A'}, /* a sign of another script is no letter */
    {"A\u200bB", 4, 'A'},
    /* Vietnamese letters are not A to H, composed or decomposed */
    {"Đ", 4, 0},
    {"Ấ", 4, 0},
    {"A\u0302\u0301", 4, 0},
    {"A\u0302\u0301 là C", 4, 'C'},
    {"e\u0302 rồi A\u0309: D)", 8, 'D'},
    {"là a\u0323. rồi b.", 4, 'B'},
    {"A\u0302B.", 4, 0}, /* the decomposed letter before it counts as one */
    {"ÂB.", 4, 0},
    {"\u2714\ufe0fB.", 4, 'B'}, /* a mark on a sign makes no letter of it */
    /* 2: before a dot */
    {"Câu trả lời là D.", 4, 'D'},
    {"Đáp án là b. Không phải C", 4, 'B'},
    {"C) hay là D.", 4, 'C'},
    {"Chọn (C) hay là D.", 4, 'D'}, /* the dot comes before the parenthesis among the rules */
    {"xB. C.", 4, 'C'},
    {"_B. C.", 4, 'C'},
    {"1B. C.", 4, 'C'},
    {"tôi chọn A. hay B.", 4, 'A'},
    /* 3: before ')' */
    {"Chọn c) vì A", 4, 'C'},
    {"Chọn: A: hay (d)", 4, 'D'},
    /* 4: before ':' */
    {"Chọn b: có", 4, 'B'},
    {"Xe A đi, vậy c: sai", 4, 'C'},
    /* 5: a capital alone */
    {"Đáp án: B", 4, 'B'},
    {"The answer is C", 4, 'C'},
    {"the answer is c", 4, 0},
    {"Đáp án đúng là B", 4, 'B'},
    {"đáp án a hoặc D", 4, 'D'},
    {"Đáp án [C]", 4, 'C'},
    {"Answer: **B**", 4, 'B'},
    /* within the number of choices */
    {"E", 4, 0},
    {"E", 5, 'E'},
    {"h", 8, 'H'},
    {"I", 8, 0},
    {"C", 2, 0},
    {"E. hay B", 4, 'B'},
    {"Không phải E. mà là B.", 4, 'B'},
    {"D. hay là (B)", 3, 'B'},
    /* nothing */
    {"", 4, 0},
    {"\ufffd", 4, 0},
    {"...):", 4, 0},
    {"Không rõ", 4, 0},
    {"@.[`{", 8, 0},
};

static void test_letters(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int found = lb_letter_extract(cases[i].text, cases[i].n_choices);
        int expected = cases[i].letter ? cases[i].letter - 'A' : -1;
        if (found == expected)
            continue;
        print_error("\"%s\" of %d: %d, %d expected\n", cases[i].text, cases[i].n_choices, found, expected);
        wrong++;
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(lb_letter_extract("\xff\x41\xc3", 4), 0); /* broken bytes are signs: 'A' stands alone */
}

static void assert_clean(const char *bytes, size_t n, const char *expected) {
    char *exact = malloc(n ? n : 1); /* of the exact size, for the sanitizer */
    memcpy(exact, bytes, n);
    char *text = lb_text_clean(exact, n);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
    free(exact);
}

#define CLEAN(bytes, expected) assert_clean(bytes, sizeof(bytes) - 1, expected)

static void test_clean(void **state) {
    (void)state;
    CLEAN("", "");
    CLEAN(" \t\r\n\v\f ", "");
    CLEAN(" A \n", "A");
    CLEAN("\u3000 Có\u00a0\u2028\xc2\x85\x1c", "Có");
    CLEAN("\u200bA\u200b", "\u200bA\u200b"); /* zero width: not white to Python */
    CLEAN("a  b", "a  b");
    CLEAN("a\0b", "a\ufffdb");
    /* as Python: one U+FFFD for the longest beginning of a character */
    CLEAN("\xe1\xbb", "\ufffd");
    CLEAN("A\xe1\xbb Z", "A\ufffd Z");
    CLEAN("\xe1\xbb\xe1\xba\xa5", "\ufffd\u1ea5");
    CLEAN("\xf0\x9f\x98", "\ufffd");
    CLEAN("\xf0\x80\x80\x80", "\ufffd\ufffd\ufffd\ufffd"); /* overlong */
    CLEAN("\xc0\xaf", "\ufffd\ufffd");
    CLEAN("\xed\xa0\x80", "\ufffd\ufffd\ufffd"); /* a surrogate */
    CLEAN("\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd");
    CLEAN("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf");
    CLEAN("\x80", "\ufffd");
    char *text = lb_text_decode(" \xff ", 3);
    assert_string_equal(text, " \ufffd ");
    free(text);
    assert_null(lb_text_first_broken("Có"));
    const char *broken = "Có\xe1\xbb";
    assert_ptr_equal(lb_text_first_broken(broken), broken + 3);
}

static void assert_nfc(const char *text, const char *expected) {
    char *normal = lb_text_nfc(text);
    assert_non_null(normal);
    assert_string_equal(normal, expected);
    free(normal);
}

static void test_nfc(void **state) {
    (void)state;
    assert_nfc("", "");
    assert_nfc("A. plain\n", "A. plain\n");
    assert_nfc("Bie\u0302\u0309n ba\u0301o", "Biển báo");
    assert_nfc("Biển báo", "Biển báo");
    assert_nfc("a\u0323\u0302", "\u1ead");
    assert_nfc("a\u0302\u0323", "\u1ead"); /* marks in the other order */
    assert_nfc("\u1112\u1161\u11ab", "\ud55c");
    assert_nfc("\u212b", "Å");
    assert_nfc("\ufb01", "\ufb01"); /* a compatibility form stays */
    assert_nfc("\U0001F6A6", "\U0001F6A6");
    assert_null(lb_text_nfc("\xff"));
    assert_null(lb_text_nfc("A\xe1\xbb"));
}

/* Marks in an order that exchanging neighbours takes time squared for. */
static void test_nfc_time(void **state) {
    (void)state;
    enum { N = 400000 };
    char *text = malloc(4 * N + 2), *end = text;
    *end++ = 'a';
    for (int i = 0; i < N; i++, end += 2)
        memcpy(end, i < N / 2 ? "\u0301" : "\u0323", 2); /* class 230, then class 220 */
    *end = 0;
    double start = lb_now_s();
    char *normal = lb_text_nfc(text);
    double spent = lb_now_s() - start;
    assert_non_null(normal);
    assert_memory_equal(normal, "\u1ea1\u0323", 5);
    print_message("%d marks: %.3f s\n", N, spent);
    assert_true(spent < 10); /* some 0.02 s; exchanging neighbours takes N * N / 4 steps, over a minute */
    free(normal);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_nfc_time),
    };
    return cmocka_run_group_tests_name("letter", tests, NULL, NULL);
}
