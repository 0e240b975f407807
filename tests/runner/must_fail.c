/* Fails, skips and passes on purpose: test_runner.py asks for its exit status and what count_tests.py makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static void passes(void **state) {
    (void)state;
}

static void skips(void **state) {
    (void)state;
    print_message("nothing to test here\n");
    skip();
}

static void fails(void **state) {
    (void)state;
    assert_int_equal(1, 2);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "abort") == 0)
        abort();
    const struct CMUnitTest tests[] = {cmocka_unit_test(passes), cmocka_unit_test(skips), cmocka_unit_test(fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
