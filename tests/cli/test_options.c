/* The table of options: every kind, every spelling, every way to get it wrong. */
#include "cli/options.c" /* no part of lowbeam_core */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

static const char *text;
static int number;
static size_t size;
static double seconds;
static float share;
static bool set_flag, cleared, ignored;

static const lb_option table[] = {
    {.kind = LB_OPTION_HEADING, .help = "Things"},
    {"text", 't', NULL, LB_OPTION_TEXT, &text, 0, 0, "TEXT", "a text"},
    {"num-frames", 'n', "num_frames", LB_OPTION_INT, &number, 1, 1024, "N", "a number"},
    {"any", 0, NULL, LB_OPTION_INT, &number, 0, 0, "N", "any number"},
    {"samples", 0, NULL, LB_OPTION_SIZE, &size, 0, 0, "N", "a count"},
    {"from", 0, NULL, LB_OPTION_SECONDS, &seconds, 0, 0, "S", "seconds"},
    {"box-threshold", 0, "detection_threshold", LB_OPTION_SHARE, &share, 0, 0, "P", "a share"},
    {"verbose", 'v', NULL, LB_OPTION_TRUE, &set_flag, 0, 0, NULL, "say more"},
    {"no-reuse", 0, NULL, LB_OPTION_FALSE, &cleared, 0, 0, NULL, "do not"},
    {"old", 0, NULL, LB_OPTION_REFUSED, &ignored, 0, 0, NULL, "do this instead"},
    {"older", 0, NULL, LB_OPTION_REFUSED, &ignored, 0, 0, "X", "do that instead"},
};
enum { N_TABLE = sizeof table / sizeof *table, N_OPERANDS = 2 };

static const char *operands[N_OPERANDS];
static int n_operands;
static bool help;
static lb_error error;

/* words: NULL-terminated, after the verb */
static lb_status parse(const char *const *words) {
    char *argv[16] = {(char *)"verb"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    text = NULL;
    number = 8;
    size = 0;
    seconds = -1;
    share = 0.5f;
    set_flag = false;
    cleared = true;
    memset(&error, 0, sizeof error);
    return lb_options_parse(table, N_TABLE, argc, argv, operands, &n_operands, N_OPERANDS, &help, &error);
}
#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void test_every_spelling(void **state) {
    (void)state;
    const char *const *const spellings[] = {
        (const char *const[]){"--num-frames", "12", NULL}, (const char *const[]){"--num-frames=12", NULL},
        (const char *const[]){"--num_frames", "12", NULL}, (const char *const[]){"--num_frames=12", NULL},
        (const char *const[]){"-n", "12", NULL},           (const char *const[]){"-n12", NULL}};
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        if (parse(spellings[i]) != LB_STATUS_OK)
            fail_msg("%s: %s", spellings[i][0], error.message);
        assert_int_equal(number, 12);
        assert_int_equal(n_operands, 0);
    }
}

static void test_share_and_dashes(void **state) {
    (void)state;
    static const char *const names[] = {"--box-threshold", "--box_threshold", "--detection_threshold",
                                        "--detection-threshold"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(PARSE(names[i], "0.25"), LB_STATUS_OK);
        assert_true(share == 0.25f);
    }
    assert_int_equal(PARSE("--box-threshold=0"), LB_STATUS_OK);
    assert_int_equal(PARSE("--box-threshold=1"), LB_STATUS_OK);
    static const char *const wrong[] = {"1.01", "-0.1", "", "x", "0.5x", "nan"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(PARSE("--box-threshold", wrong[i]), LB_STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "from 0 to 1"));
        assert_true(share == 0.5f);
    }
    assert_int_equal(PARSE("--box", "0.25"), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(PARSE("--box-thresholds", "0.25"), LB_STATUS_INVALID_ARGUMENT);
}

static void test_every_kind(void **state) {
    (void)state;
    assert_int_equal(PARSE("a", "--text", "-x", "--samples", "3", "--from", "-1.5e1", "-v", "--no-reuse", "b"),
                     LB_STATUS_OK);
    assert_string_equal(text, "-x"); /* a value may begin with a dash */
    assert_int_equal(size, 3);
    assert_true(seconds == -15.0);
    assert_true(set_flag && !cleared && !help);
    assert_int_equal(n_operands, 2);
    assert_string_equal(operands[0], "a");
    assert_string_equal(operands[1], "b");
    assert_int_equal(PARSE("--text="), LB_STATUS_OK);
    assert_string_equal(text, "");
    assert_int_equal(PARSE("--text=a=b"), LB_STATUS_OK);
    assert_string_equal(text, "a=b");
    assert_int_equal(PARSE("--any", "2147483647"), LB_STATUS_OK);
    assert_int_equal(number, INT_MAX);
}

static void test_operands(void **state) {
    (void)state;
    assert_int_equal(PARSE("--", "--text", "-n"), LB_STATUS_OK);
    assert_string_equal(operands[0], "--text");
    assert_string_equal(operands[1], "-n");
    assert_int_equal(PARSE("-"), LB_STATUS_OK);
    assert_string_equal(operands[0], "-");
    assert_int_equal(PARSE(""), LB_STATUS_OK);
    assert_string_equal(operands[0], "");
    assert_int_equal(PARSE("a", "b", "c"), LB_STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "c: one too many"));
}

static void test_help(void **state) {
    (void)state;
    assert_int_equal(PARSE("-v", "--help"), LB_STATUS_OK);
    assert_true(help);
    assert_int_equal(PARSE("-h"), LB_STATUS_OK);
    assert_true(help);
    assert_int_equal(PARSE("--text", "--help"), LB_STATUS_OK);
    assert_false(help);
    assert_string_equal(text, "--help");
}

static void test_what_is_wrong_is_named(void **state) {
    (void)state;
    const struct {
        const char *words[3], *message;
    } wrong[] = {
        {{"--nothing"}, "--nothing: there is no such option"},
        {{"--nothing=3"}, "--nothing: there is no such option"},
        {{"--num-frame", "3"}, "--num-frame: there is no such option"}, /* no guessing of cut names */
        {{"-x"}, "-x: there is no such option"},
        {{"---v"}, "---v: there is no such option"},
        {{"--=3"}, "--: there is no such option"},
        {{"--text"}, "--text needs a value: TEXT"},
        {{"-n"}, "--num-frames needs a value: N"},
        {{"--verbose=1"}, "--verbose takes no value"},
        {{"-vn"}, "--verbose takes no value"},
        {{"--num-frames", "0"}, "--num-frames 0: takes a whole number from 1 to 1024"},
        {{"--num-frames", "1025"}, "--num-frames 1025: "},
        {{"--num-frames", ""}, "--num-frames : takes"},
        {{"--num-frames", "3x"}, "--num-frames 3x: "},
        {{"--num-frames", "1.5"}, "--num-frames 1.5: "},
        {{"--num-frames", "99999999999999999999"}, "--num-frames 9999"},
        {{"--any", "-1"}, "--any -1: takes a whole number from 0 to 2147483647"},
        {{"--any", "2147483648"}, "--any 2147483648: "},
        {{"--samples", "-1"}, "--samples -1: takes a whole number, 0 or more"},
        {{"--samples", "many"}, "--samples many: "},
        {{"--from", "soon"}, "--from soon: takes seconds"},
        {{"--from", "nan"}, "--from nan: "},
        {{"--from", "inf"}, "--from inf: "},
        {{"--from", "1e999"}, "--from 1e999: "},
        {{"--from", ""}, "--from : takes"},
        {{"--old"}, "--old: do this instead"},
        {{"--older", "3"}, "--older: do that instead"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (parse(wrong[i].words) != LB_STATUS_INVALID_ARGUMENT)
            fail_msg("%s %s was taken", wrong[i].words[0], wrong[i].words[1] ? wrong[i].words[1] : "");
        if (strncmp(error.message, wrong[i].message, strlen(wrong[i].message)) != 0)
            fail_msg("%s\nexpected: %s", error.message, wrong[i].message);
    }
}

static void test_help_lists_all_but_what_is_refused(void **state) {
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int before = dup(1);
    assert_true(dup2(fileno(file), 1) == 1);
    number = 8;
    text = "deep";
    seconds = NAN;
    lb_options_print(table, N_TABLE);
    fflush(stdout);
    dup2(before, 1);
    close(before);
    char printed[2048];
    rewind(file);
    printed[fread(printed, 1, sizeof printed - 1, file)] = 0;
    fclose(file);
    static const char *const expected[] = {"\nThings\n",   "-n, --num-frames N", "a number [8]\n", "a text [deep]\n",
                                           "    --from S", "seconds\n",          "say more\n"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        if (!strstr(printed, expected[i]))
            fail_msg("'%s' is not in\n%s", expected[i], printed);
    assert_null(strstr(printed, "instead"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_spelling),
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_share_and_dashes),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_help_lists_all_but_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
