/* What the decoder cannot do, and what becomes of a video that makes it try: with tests/video/hostile_decode.c in its
 * place. Environment: LOWBEAM_HOSTILE_DECODE, REFUSED_PROGRAM (refuse_filter.c), LOWBEAM_DECODE. */
#include "video/video.h"

#include "base/log.h"
#include "base/time.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

static char folder[] = "/tmp/lowbeam-confine-XXXXXX", path[64];

static int warnings;
static bool has_filter;

static const char *video(const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    return path;
}

static lb_frames_params hostile(void) {
    lb_frames_params params = lb_frames_default_params();
    params.decoder_path = getenv("LOWBEAM_HOSTILE_DECODE");
    assert_non_null(params.decoder_path);
    return params;
}

/* One video; its failure, or OK and nothing kept. */
static lb_error read_video(const char *text, const lb_frames_params *params) {
    lb_frames *frames = NULL;
    lb_error error = {0};
    error.status = lb_frames_read(video(text), params, &frames, &error);
    assert_int_equal(error.status == LB_STATUS_OK, frames != NULL);
    lb_frames_free(frames);
    assert_true(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* no decoder is left */
    return error;
}

static void count_warnings(lb_log_level level, const char *stage, const char *message, void *user) {
    (void)user;
    if (level < LB_LOG_WARN)
        return;
    assert_string_equal(stage, "video");
    assert_non_null(strstr(message, "seccomp"));
    warnings++;
}

static void need_filter(void) {
    if (has_filter)
        return;
    print_message("the kernel refuses system call filters here\n");
    skip();
}

static void expect(const char *text, const lb_frames_params *params, lb_status status, const char *word) {
    const lb_error error = read_video(text, params);
    if (error.status != status || !strstr(error.message, word))
        fail_msg("%s: %s \"%s\", expected %s with \"%s\"", text, lb_status_name(error.status), error.message,
                 lb_status_name(status), word);
}

static void what_decoding_needs_is_allowed(void **state) {
    (void)state;
    const lb_frames_params params = hostile();
    assert_int_equal(read_video("good", &params).status, LB_STATUS_OK);
    assert_int_equal(read_video("threads", &params).status, LB_STATUS_OK);
}

static void what_decoding_does_not_need_fails(void **state) {
    (void)state;
    need_filter();
    static const char *const refused[] = {"open", "create", "write",   "grow",  "fill",    "unlink",
                                          "stat", "code",   "protect", "raise", "send-to", "descriptor"};
    const lb_frames_params params = hostile();
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char text[64];
        snprintf(text, sizeof text, "try %s\n", refused[i]);
        expect(text, &params, LB_STATUS_FORMAT, "Operation not permitted");
    }
    assert_true(access("/tmp/lowbeam-escaped", F_OK));
}

static void what_only_intruders_do_ends_the_decoder(void **state) {
    (void)state;
    need_filter();
    static const char *const deadly[] = {"socket", "fork", "exec", "kill", "trace"};
    const lb_frames_params params = hostile();
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) {
        char text[64];
        snprintf(text, sizeof text, "try %s\n", deadly[i]);
        expect(text, &params, LB_STATUS_CHILD_DIED, "SIGSYS");
    }
}

static void a_crash_is_one_video(void **state) {
    (void)state;
    const lb_frames_params params = hostile();
    expect("crash", &params, LB_STATUS_CHILD_DIED, "SIGSEGV");
    expect("abort", &params, LB_STATUS_CHILD_DIED, "SIGABRT");
    expect("die-late", &params, LB_STATUS_CHILD_DIED, "SIGBUS");
    expect("vanish", &params, LB_STATUS_CHILD_DIED, "without an answer");
    expect("lie", &params, LB_STATUS_CHILD_DIED, "slot 77");
    assert_int_equal(read_video("good", &params).status, LB_STATUS_OK);
}

static void time_limits_hold(void **state) {
    (void)state;
    lb_frames_params params = hostile();
    params.timeout_s = 0.5;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"hang", "no progress for 0.5 s"},
        {"hang-late", "no progress for 0.5 s"},
        {"spin", "counting the frames"},
        {"spin-late", "frame 2 of 8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const double began_s = lb_now_s();
        expect(cases[i].text, &params, LB_STATUS_TIMEOUT, cases[i].word);
        const double took_s = lb_now_s() - began_s;
        if (took_s < 0.5 || took_s > 5) /* a busy machine may take its time */
            fail_msg("%s: given up after %.2f s", cases[i].text, took_s);
    }
    params.timeout_s = 30; /* slow is not hanging */
    assert_int_equal(read_video("slow", &params).status, LB_STATUS_OK);
}

static void processor_time_is_limited(void **state) {
    (void)state;
    lb_frames_params params = hostile();
    params.timeout_s = 60;
    params.cpu_s = 1;
    expect("cpu", &params, LB_STATUS_TIMEOUT, "more than 1 s of processor time");
}

static void memory_is_limited(void **state) {
    (void)state;
    if (IS_SANITIZED) {
        print_message("a sanitizer needs more addresses than the limit\n");
        skip();
    }
    lb_frames_params params = hostile();
    params.decoder_bytes = (size_t)128 << 20;
    const lb_error error = read_video("eat", &params);
    size_t eaten = 0;
    if (error.status != LB_STATUS_OUT_OF_MEMORY || !strstr(error.message, "ate ") ||
        sscanf(strstr(error.message, "ate "), "ate %zu", &eaten) != 1)
        fail_msg("%s: %s", lb_status_name(error.status), error.message);
    if (eaten < 32 || eaten > 128)
        fail_msg("128 MiB allowed, %zu eaten", eaten);
    /* The frames' memory comes on top of it. */
    params.n_frames = 1024;
    params.decoder_bytes = (size_t)16 << 20;
    assert_int_equal(read_video("good", &params).status, LB_STATUS_OK);
}

static void a_kernel_without_filters_is_named_once(void **state) {
    (void)state;
    lb_frames_params params = hostile();
    need_filter();
    lb_log_set(count_warnings, NULL);
    assert_int_equal(setenv("REFUSED_PROGRAM", params.decoder_path, 1), 0);
    params.decoder_path = getenv("LOWBEAM_REFUSE_FILTER");
    for (int i = 0; i < 3; i++)
        assert_int_equal(read_video("good", &params).status, LB_STATUS_OK);
    assert_int_equal(warnings, 1);
    /* The other limits are there all the same. */
    expect("try open", &params, LB_STATUS_FORMAT, "Too many open files");
    expect("try descriptor", &params, LB_STATUS_FORMAT, "Too many open files");
    if (!IS_SANITIZED)
        expect("try raise", &params, LB_STATUS_FORMAT, "Operation not permitted");
    expect("try write", &params, LB_STATUS_FORMAT, "Bad file descriptor");
    expect("try fill", &params, LB_STATUS_CHILD_DIED, "SIGXFSZ");
    lb_log_set(NULL, NULL);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/video.mp4", folder);
    const lb_frames_params params = hostile();
    lb_log_set(count_warnings, NULL);
    const lb_error error = read_video("good", &params);
    lb_log_set(NULL, NULL);
    has_filter = !warnings;
    return error.status == LB_STATUS_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_decoding_needs_is_allowed),
        cmocka_unit_test(what_decoding_does_not_need_fails),
        cmocka_unit_test(what_only_intruders_do_ends_the_decoder),
        cmocka_unit_test(a_crash_is_one_video),
        cmocka_unit_test(time_limits_hold),
        cmocka_unit_test(processor_time_is_limited),
        cmocka_unit_test(memory_is_limited),
        cmocka_unit_test(a_kernel_without_filters_is_named_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
