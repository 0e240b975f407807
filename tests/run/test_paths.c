/* Where a video_path leads, and the names of --dump's folders. */
#include "run/paths.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char top[64], base[80], outside[80];

static void touch(const char *folder, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

static void link_to(const char *target, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", base, name);
    assert_int_equal(symlink(target, path), 0);
}

static int make_folders(void **state) {
    (void)state;
    strcpy(top, "/tmp/lowbeam-paths-XXXXXX");
    if (!mkdtemp(top))
        return -1;
    snprintf(base, sizeof base, "%s/base", top);
    snprintf(outside, sizeof outside, "%s/base2", top); /* begins as base does, which is no excuse */
    mkdir(base, 0777);
    mkdir(outside, 0777);
    char path[128];
    snprintf(path, sizeof path, "%s/deep", base);
    mkdir(path, 0777);
    touch(base, "a.mp4");
    touch(path, "b.mp4");
    touch(outside, "x.mp4");
    link_to("a.mp4", "inside.mp4");
    link_to("../base2/x.mp4", "link.mp4");
    link_to("../base2", "linked");
    link_to("nowhere", "dangling.mp4");
    link_to("loop.mp4", "loop.mp4");
    return 0;
}

static int remove_folders(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", top);
    return system(command);
}

static void expect(const char *video_path, bool allow_outside, lb_status expected) {
    char *path;
    lb_error error = {0};
    lb_status status = lb_video_path(base, video_path, allow_outside, &path, &error);
    if (status != expected)
        fail_msg("%s: %s, expected %s: %s", video_path, lb_status_name(status), lb_status_name(expected),
                 error.message);
    if (status == LB_STATUS_OK) {
        assert_int_equal(access(path, F_OK), 0);
    } else {
        assert_null(path);
        assert_non_null(strstr(error.message, video_path));
    }
    free(path);
}

static void test_what_stays_inside(void **state) {
    (void)state;
    static const char *const inside[] = {"a.mp4", "./a.mp4", "deep/b.mp4", "deep//b.mp4", "deep/", "inside.mp4", "."};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        expect(inside[i], false, LB_STATUS_OK);
        expect(inside[i], true, LB_STATUS_OK);
    }
}

static void test_what_leaves(void **state) {
    (void)state;
    char absolute[128];
    snprintf(absolute, sizeof absolute, "%s/a.mp4", base);
    const char *const leaving[] = {"../base2/x.mp4", "deep/../a.mp4", "deep/..",  "..",
                                   "../base/a.mp4",  absolute,        "link.mp4", "linked/x.mp4"};
    for (size_t i = 0; i < sizeof leaving / sizeof *leaving; i++) {
        expect(leaving[i], false, LB_STATUS_REFUSED);
        expect(leaving[i], true, LB_STATUS_OK);
    }
    expect("...", false, LB_STATUS_NOT_FOUND); /* a name like any other */
    expect("..a", false, LB_STATUS_NOT_FOUND);
}

static void test_what_is_not_there(void **state) {
    (void)state;
    expect("none.mp4", false, LB_STATUS_NOT_FOUND);
    expect("a.mp4/x", false, LB_STATUS_NOT_FOUND);
    expect("dangling.mp4", false, LB_STATUS_NOT_FOUND);
    expect("loop.mp4", false, LB_STATUS_IO);
    char *path;
    assert_int_equal(lb_video_path("/nowhere/at/all", "a.mp4", false, &path, NULL), LB_STATUS_NOT_FOUND);
}

static void test_root_as_base(void **state) {
    (void)state;
    char *path;
    lb_error error = {0};
    char relative[128];
    snprintf(relative, sizeof relative, "%s/a.mp4", base + 1);
    if (lb_video_path("/", relative, false, &path, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    free(path);
}

/* ---- names of --dump ---- */

typedef struct row {
    const char *video, *id, *video_name, *id_name;
} row;

/* Each row is a question with a video of its own; NULL video: the group before. */
static void expect_names(const row *rows, size_t n) {
    lb_video_group groups[16] = {0};
    lb_question questions[16] = {0};
    size_t n_groups = 0;
    for (size_t i = 0; i < n; i++) {
        questions[i].id = (char *)rows[i].id;
        if (rows[i].video)
            groups[n_groups++].video_path = (char *)rows[i].video;
    }
    lb_dataset dataset = {.question = questions, .n_questions = n, .group = groups, .n_groups = n_groups};
    lb_dump_names names;
    lb_error error = {0};
    if (lb_dump_names_make("dump", &dataset, &names, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    for (size_t i = 0, g = 0; i < n; i++) {
        assert_string_equal(names.question[i] + 5, rows[i].id_name);
        assert_int_equal(strncmp(names.question[i], "dump/", 5), 0);
        if (rows[i].video)
            assert_string_equal(names.video[g++] + 5, rows[i].video_name);
    }
    lb_dump_names_free(&names);
}

static void test_other_bytes_become_underscores(void **state) {
    (void)state;
    expect_names((row[]){{"clips/a b.mp4", "q:1", "clips_a_b.mp4", "q_1"},
                         {"Ô.mp4", "-x", "__.mp4", "-x"},
                         {"..", ".", "_", "_-2"}},
                 3);
}

static void test_names_that_meet_are_counted(void **state) {
    (void)state;
    expect_names((row[]){{"a", "a", "a", "a-2"}, {"a/", "a:", "a_", "a_-2"}, {NULL, "a;", NULL, "a_-3"}}, 3);
    /* a number that another one has for a name of its own is passed over */
    expect_names((row[]){{"a", "a", "a", "a-3"}, {"a-2", "b", "a-2", "b"}}, 2);
    expect_names((row[]){{"x", "a", "x", "a"},
                         {NULL, "a?", NULL, "a_"},
                         {NULL, "a!", NULL, "a_-2"},
                         {NULL, "a_-3", NULL, "a_-3"},
                         {NULL, "a%", NULL, "a_-4"}},
                 5);
}

static void test_long_names_are_cut_and_stay_apart(void **state) {
    (void)state;
    char one[600], other[600];
    memset(one, 'x', sizeof one - 1);
    one[sizeof one - 1] = 0;
    memcpy(other, one, sizeof other);
    other[sizeof other - 2] = 'y';
    lb_question questions[2] = {{.id = one}, {.id = other}};
    lb_dataset dataset = {.question = questions, .n_questions = 2};
    lb_dump_names names;
    assert_int_equal(lb_dump_names_make("d", &dataset, &names, NULL), LB_STATUS_OK);
    assert_string_not_equal(names.question[0], names.question[1]);
    for (int i = 0; i < 2; i++)
        assert_true(strlen(names.question[i] + 2) <= 255); /* NAME_MAX */
    lb_dump_names_free(&names);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_stays_inside),
        cmocka_unit_test(test_what_leaves),
        cmocka_unit_test(test_what_is_not_there),
        cmocka_unit_test(test_root_as_base),
        cmocka_unit_test(test_other_bytes_become_underscores),
        cmocka_unit_test(test_names_that_meet_are_counted),
        cmocka_unit_test(test_long_names_are_cut_and_stay_apart),
    };
    return cmocka_run_group_tests(tests, make_folders, remove_folders);
}
