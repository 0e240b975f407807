/* What a process of its own makes of functions that come back, fail, abort, crash, leave or hang. */
#include "run/child_first.h"

#include "base/error.h"
#include "base/time.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static lb_status comes_back(void *user, lb_error *error) {
    (void)error;
    *(int *)user = 7;
    puts("not to be seen");
    return LB_STATUS_OK;
}

static lb_status fails(void *user, lb_error *error) {
    return lb_error_set(error, LB_STATUS_FORMAT, "%s: broken", (const char *)user);
}

static lb_status aborts(void *user, lb_error *error) {
    (void)user, (void)error;
    fputs("load: something\nggml.c:1: GGML_ASSERT(ne > 0) failed\n[New LWP 12]\n#0 0x1 in abort\n", stderr);
    abort();
}

static lb_status crashes(void *user, lb_error *error) {
    (void)user, (void)error;
    signal(SIGSEGV, SIG_DFL); /* cmocka has a handler */
    raise(SIGSEGV);
    return LB_STATUS_OK;
}

static lb_status leaves(void *user, lb_error *error) {
    (void)user, (void)error;
    if (getppid() > 0)
        _exit(9);
    return LB_STATUS_OK;
}

static lb_status hangs(void *user, lb_error *error) {
    (void)user, (void)error;
    while (pause())
        ;
    return LB_STATUS_OK;
}

static void expect(lb_child_first_fn fn, lb_status status, const char *word) {
    lb_error error = {0};
    const lb_status got = lb_child_first(fn, (void *)"x.gguf", NULL, &error);
    if (got != status || !strstr(error.message, word))
        fail_msg("%s \"%s\", expected %s with \"%s\"", lb_status_name(got), error.message, lb_status_name(status),
                 word);
}

static void test_outcomes(void **state) {
    (void)state;
    int seen = 0;
    assert_int_equal(lb_child_first(comes_back, &seen, NULL, NULL), LB_STATUS_OK);
    assert_int_equal(seen, 0); /* it happened elsewhere */
    expect(fails, LB_STATUS_FORMAT, "x.gguf: broken");
    expect(aborts, LB_STATUS_CHILD_DIED, "(SIGABRT): ggml.c:1: GGML_ASSERT(ne > 0) failed");
    expect(crashes, LB_STATUS_CHILD_DIED, "(SIG");
    expect(leaves, LB_STATUS_CHILD_DIED, "exit status 9");
}

static atomic_bool cancelled;

static void cancel(int number) {
    (void)number;
    cancelled = true;
}

static void test_cancel(void **state) {
    (void)state;
    signal(SIGALRM, cancel);
    alarm(1);
    const double began_s = lb_now_s();
    lb_error error = {0};
    assert_int_equal(lb_child_first(hangs, NULL, &cancelled, &error), LB_STATUS_INTERRUPTED);
    assert_true(lb_now_s() - began_s < 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_outcomes), cmocka_unit_test(test_cancel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
