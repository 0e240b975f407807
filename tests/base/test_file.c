/* Folders that are made, and the one that lowbeam keeps things in. */
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "scratch.h"

static void test_folders(void **state) {
    (void)state;
    char path[256];
    struct stat st;
    lb_error error = {0};
    for (int again = 0; again < 2; again++) {
        snprintf(path, sizeof path, "%s/a/b//c/", scratch);
        if (lb_folder_make(path, &error) != LB_STATUS_OK)
            fail_msg("%s", error.message);
        assert_true(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
    }
    snprintf(path, sizeof path, "%s/file", scratch);
    FILE *file = fopen(path, "w");
    assert_true(file && fclose(file) == 0);
    strcat(path, "/x");
    assert_int_equal(lb_folder_make(path, &error), LB_STATUS_IO);
    snprintf(path, sizeof path, "%s/file", scratch);
    assert_int_equal(lb_folder_make(path, &error), LB_STATUS_IO); /* there, but no folder */
    assert_int_equal(lb_folder_make("", &error), LB_STATUS_IO);
    char name[5000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(lb_folder_make(name, &error), LB_STATUS_IO);
}

static void test_user_cache(void **state) {
    (void)state;
    char path[32];
    setenv("LOWBEAM_CACHE", "/own", 1);
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    setenv("HOME", "/home", 1);
    assert_true(lb_user_cache(path, sizeof path));
    assert_string_equal(path, "/own");
    setenv("LOWBEAM_CACHE", "", 1);
    assert_true(lb_user_cache(path, sizeof path));
    assert_string_equal(path, "/xdg/lowbeam");
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    assert_true(lb_user_cache(path, sizeof path));
    assert_string_equal(path, "/home/.cache/lowbeam");
    assert_false(lb_user_cache(path, sizeof "/home/.cache/lowbeam" - 1));
    unsetenv("HOME");
    assert_false(lb_user_cache(path, sizeof path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_user_cache),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
