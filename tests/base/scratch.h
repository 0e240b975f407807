/* A folder for what a test writes, with all of it removed at the end:
 *
 *     return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
 *
 * To be included after cmocka.h, stdio.h, stdlib.h and string.h. */
#ifndef LB_TESTS_SCRATCH_H
#define LB_TESTS_SCRATCH_H

static char scratch[64]; /* its path */

static int make_scratch(void **state) {
    (void)state;
    strcpy(scratch, "/tmp/lowbeam-test-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

#endif
