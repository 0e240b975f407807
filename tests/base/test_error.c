/* Messages are one line of whole characters, and however long a path is, the cause is in it. */
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_context(void **state) {
    (void)state;
    lb_error error = {0};
    assert_int_equal(lb_error_set(&error, LB_STATUS_IO, "no\nspace"), LB_STATUS_IO);
    assert_int_equal(lb_error_context(&error, "question %d", 7), LB_STATUS_IO);
    assert_int_equal(lb_error_add(&error, "; %s", "go on"), LB_STATUS_IO);
    assert_string_equal(error.message, "question 7: no space; go on");
    assert_int_equal(lb_error_context(NULL, "x"), LB_STATUS_INTERNAL);
    assert_int_equal(lb_error_add(NULL, "x"), LB_STATUS_INTERNAL);
}

static void test_long(void **state) {
    (void)state;
    static const char *const units[] = {"x", "đ", "ệ", "\xf0\x9f\x9a\xa6"};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++)
        for (size_t n = 1900; n < 2100; n++) {
            size_t length = strlen(units[u]);
            char *path = calloc(n + 8, 1);
            for (size_t at = 0; at < n; at += length)
                memcpy(path + at, units[u], length);
            lb_error error = {0};
            lb_error_set(&error, LB_STATUS_NOT_FOUND, "No such file");
            lb_error_context(&error, "%s", path);
            const size_t got = strlen(error.message);
            assert_true(got < sizeof error.message);
            if (strcmp(error.message + got - 14, ": No such file"))
                fail_msg("%zu bytes of %s: ends in \"%s\"", n, units[u], error.message + got - 20);
            /* whole characters before the cause */
            size_t at = 0;
            while (!strncmp(error.message + at, units[u], length))
                at += length;
            assert_true(!strcmp(error.message + at, ": No such file") ||
                        !strcmp(error.message + at, "...: No such file"));
            lb_error_context(&error, "%s", path);
            assert_non_null(strstr(error.message, units[u]));
            free(path);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_context), cmocka_unit_test(test_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
