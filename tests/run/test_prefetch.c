/* Clips made ready ahead: in order, each once, failures with their cause, and a stop that waits for nothing. The clips
 * are files of one picture (tests/image/files); a decoder that hangs is a shell script. */
#include "run/prefetch.h"

#include "base/time.h"
#include "detector/preprocess.h"
#include "memory/ledger.h"

#include <glob.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static const char base[] = "../image/files"; /* ctest runs in the test's folder */
static char script[64], hanging[64];

static int make_script(void **state) {
    (void)state;
    strcpy(script, "/tmp/lowbeam-hang-XXXXXX");
    strcpy(hanging, "/tmp/lowbeam-video-XXXXXX");
    int fd = mkstemp(script), video = mkstemp(hanging);
    static const char text[] = "#!/bin/sh\nsleep 1000\n";
    if (fd < 0 || video < 0 || write(fd, text, strlen(text)) < 0 || write(video, "x", 1) < 0)
        return -1;
    close(video);
    fchmod(fd, 0755);
    return close(fd);
}

static int remove_script(void **state) {
    (void)state;
    unlink(script);
    unlink(hanging);
    return 0;
}

static lb_prefetch_params params_for(int n_threads, int n_ahead) {
    lb_prefetch_params params = {
        .clip = {.frames = lb_frames_default_params(), .max_tiles = 1, .tile_size = 28},
        .base = base,
        .n_threads = n_threads,
        .n_ahead = n_ahead,
    };
    params.clip.frames.n_frames = 2;
    params.clip.frames.decoder_path = script;
    return params;
}

static lb_prefetch *start(const char *const *paths, size_t n, const lb_prefetch_params *params) {
    lb_prefetch *prefetch;
    lb_error error = {0};
    if (lb_prefetch_start(paths, n, params, &prefetch, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    return prefetch;
}

static void test_in_order_each_once(void **state) {
    (void)state;
    static const char *const names[] = {"rgb.jpg", "none.jpg", "type2_8bit.png", "../run/x.png", "grey.jpg"};
    static const lb_status expected[] = {LB_STATUS_OK, LB_STATUS_NOT_FOUND, LB_STATUS_OK, LB_STATUS_REFUSED,
                                         LB_STATUS_OK};
    enum { N = 60 };
    const char *paths[N];
    for (int i = 0; i < N; i++)
        paths[i] = names[i % 5];
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        for (int n_ahead = 1; n_ahead <= 7; n_ahead += 3) {
            const lb_prefetch_params params = params_for(n_threads, n_ahead);
            lb_prefetch *prefetch = start(paths, N, &params);
            for (size_t i = 0; i < N; i++) {
                lb_clip *clip;
                lb_error error = {0};
                lb_status status = lb_prefetch_take(prefetch, i, &clip, &error);
                if (status != expected[i % 5])
                    fail_msg("clip %zu, %s: %s %s", i, paths[i], lb_status_name(status), error.message);
                if (status == LB_STATUS_OK) {
                    assert_int_equal(clip->n_tiles, 2);
                    assert_int_equal(clip->frames->n_total, 1);
                    assert_int_equal(clip->tiles_per_frame[1], 1);
                    assert_memory_equal(clip->tiles, clip->tiles + 28 * 28 * 3, 28 * 28 * 3); /* the same frame twice */
                } else {
                    assert_null(clip);
                    assert_non_null(strstr(error.message, paths[i]));
                }
                if (i % 2)
                    lb_clip_free(clip);
                else
                    lb_prefetch_give_back(prefetch, clip);
            }
            lb_prefetch_stop(prefetch);
        }
    }
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
}

/* The detector's pictures: one for a frame and its repetitions, resized as the detector itself would. */
static void test_resized_for_the_detector(void **state) {
    (void)state;
    static const char *const paths[] = {"rgb.jpg"};
    lb_prefetch_params params = params_for(1, 1);
    params.clip.frames.n_frames = 3;
    params.clip.shortest_edge = 50;
    params.clip.longest_edge = 90;
    lb_prefetch *prefetch = start(paths, 1, &params);
    lb_clip *clip;
    assert_int_equal(lb_prefetch_take(prefetch, 0, &clip, NULL), LB_STATUS_OK);
    lb_preprocess_params edges = lb_preprocess_default_params();
    edges.shortest_edge = 50;
    edges.longest_edge = 90;
    int width, height;
    const lb_resized *r = &clip->resized;
    assert_int_equal(lb_preprocess_size(&edges, clip->frames->width, clip->frames->height, &width, &height, NULL),
                     LB_STATUS_OK);
    assert_int_equal(r->n, 1);
    assert_int_equal(r->width, width);
    assert_int_equal(r->height, height);
    for (int i = 0; i < 3; i++)
        assert_int_equal(r->of_frame[i], 0);
    const size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *expected = malloc(bytes);
    assert_int_equal(lb_preprocess_resize(lb_frames_view(clip->frames, 0), width, height, expected, NULL),
                     LB_STATUS_OK);
    assert_memory_equal(r->data, expected, bytes);
    assert_int_equal(lseek(clip->resized_fd, 0, SEEK_END), bytes);
    free(expected);
    lb_clip_free(clip);
    lb_prefetch_stop(prefetch);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
}

static void test_stop_before_anything_is_taken(void **state) {
    (void)state;
    static const char *const paths[] = {"rgb.jpg", "grey.jpg", "422.jpg", "444.jpg", "rgb.jpg"};
    for (int i = 0; i < 5; i++) {
        const lb_prefetch_params params = params_for(3, 2);
        lb_prefetch *prefetch = start(paths, 5, &params);
        usleep((useconds_t)i * 3000);
        lb_prefetch_stop(prefetch);
    }
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
    lb_prefetch_stop(NULL);
}

static void test_more_threads_than_clips(void **state) {
    (void)state;
    static const char *const paths[] = {"rgb.jpg"};
    const lb_prefetch_params params = params_for(100, 100);
    lb_prefetch *prefetch = start(paths, 1, &params);
    lb_clip *clip;
    assert_int_equal(lb_prefetch_take(prefetch, 0, &clip, NULL), LB_STATUS_OK);
    lb_clip_free(clip);
    lb_prefetch_stop(prefetch);
}

static void test_stop_does_not_wait_for_a_decoder_that_hangs(void **state) {
    (void)state;
    const char *const paths[] = {hanging, hanging};
    lb_prefetch_params params = params_for(2, 2);
    params.allow_outside = true;
    params.clip.frames.timeout_s = 600;
    const double began = lb_now_s();
    lb_prefetch *prefetch = start(paths, 2, &params);
    usleep(200000);
    lb_prefetch_stop(prefetch);
    assert_true(lb_now_s() - began < 10); /* not 600; a busy machine may take its time */
}

static atomic_bool cancelled;

static void cancel(int number) {
    (void)number;
    cancelled = true;
}

static void test_cancel_ends_the_wait(void **state) {
    (void)state;
    const char *const paths[] = {hanging};
    lb_prefetch_params params = params_for(1, 1);
    params.allow_outside = true;
    params.clip.frames.timeout_s = 600;
    params.cancel = &cancelled;
    struct sigaction action = {.sa_handler = cancel}, before;
    sigaction(SIGALRM, &action, &before);
    alarm(1);
    lb_prefetch *prefetch = start(paths, 1, &params);
    lb_clip *clip;
    lb_error error = {0};
    assert_int_equal(lb_prefetch_take(prefetch, 0, &clip, &error), LB_STATUS_INTERRUPTED);
    assert_null(clip);
    lb_prefetch_stop(prefetch);
    sigaction(SIGALRM, &before, NULL);
}

static void test_time_limit_is_the_clips_failure(void **state) {
    (void)state;
    const char *const paths[] = {hanging, "rgb.jpg"};
    lb_prefetch_params params = params_for(1, 1);
    params.allow_outside = true;
    params.clip.frames.timeout_s = 0.3;
    lb_prefetch *prefetch = start(paths, 2, &params);
    lb_clip *clip;
    lb_error error = {0};
    assert_int_equal(lb_prefetch_take(prefetch, 0, &clip, &error), LB_STATUS_TIMEOUT);
    assert_non_null(strstr(error.message, hanging));
    assert_int_equal(lb_prefetch_take(prefetch, 1, &clip, &error), LB_STATUS_OK);
    lb_clip_free(clip);
    lb_prefetch_stop(prefetch);
}

/* While the first clip's decoder hangs, the ones behind are made ready; two that hang do so at the same time. */
static void test_a_hang_does_not_stop_the_others(void **state) {
    (void)state;
    const char *const paths[] = {hanging, "rgb.jpg", "grey.jpg", hanging, hanging, "422.jpg"};
    lb_prefetch_params params = params_for(2, 3);
    params.allow_outside = true;
    params.clip.frames.timeout_s = 4;
    const double began = lb_now_s();
    lb_prefetch *prefetch = start(paths, 6, &params);
    size_t held = 0, before;
    do { /* both pictures' frames and tiles are held: the second one is in its slot when this does not grow any more */
        before = held;
        usleep(500000);
        held = lb_ledger_get(LB_COMPONENT_FRAMES);
    } while ((held == 0 || held != before) && lb_now_s() - began < 3.5);
    lb_clip *clip = NULL;
    lb_error error = {0};
    assert_int_equal(lb_prefetch_take(prefetch, 0, &clip, &error), LB_STATUS_TIMEOUT);
    const double given_up = lb_now_s();
    size_t one = 0;
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(lb_prefetch_take(prefetch, i, &clip, &error), LB_STATUS_OK);
        one += clip->frames->data_bytes + clip->tiles_bytes;
        lb_clip_free(clip);
    }
    assert_int_equal(held, one); /* they were there before the first one was given up */
    assert_true(lb_now_s() - given_up < 2);
    for (size_t i = 3; i < 5; i++)
        assert_int_equal(lb_prefetch_take(prefetch, i, &clip, &error), LB_STATUS_TIMEOUT);
    assert_true(lb_now_s() - given_up < 7); /* 4 s for both, not for each */
    assert_int_equal(lb_prefetch_take(prefetch, 5, &clip, &error), LB_STATUS_OK);
    lb_clip_free(clip);
    lb_prefetch_stop(prefetch);
}

static size_t clip_bytes(const lb_clip *clip) {
    return clip->frames->data_bytes + clip->tiles_bytes + clip->resized_bytes;
}

/* Room for one clip or a little more: whatever the threads are at, no more is ever held, and each clip comes. */
static void test_never_more_than_the_limit(void **state) {
    (void)state;
    static const char *const paths[] = {"rgb.jpg", "grey.jpg", "422.jpg", "444.jpg", "rgb.jpg", "grey.jpg", "422.jpg"};
    enum { N = sizeof paths / sizeof *paths };
    const lb_phase phases[] = {LB_PHASE_DETECT, LB_PHASE_ENCODE, LB_PHASE_PROMPT}; /* one a round: each has its peaks */
    size_t largest = 0, all = 0;
    for (int round = 0; round < 4; round++) {
        lb_prefetch_params params = params_for(3, 4);
        params.max_bytes = round == 0 ? 0 : largest * (size_t)(round + 1) / 2;
        lb_ledger_phase(round == 0 ? LB_PHASE_LOAD : phases[round - 1]);
        lb_prefetch *prefetch = start(paths, N, &params);
        for (size_t i = 0; i < N; i++) {
            lb_clip *clip;
            lb_error error = {0};
            if (lb_prefetch_take(prefetch, i, &clip, &error) != LB_STATUS_OK)
                fail_msg("%s", error.message);
            largest = clip_bytes(clip) > largest ? clip_bytes(clip) : largest;
            all += clip_bytes(clip);
            usleep(2000);
            lb_prefetch_give_back(prefetch, clip);
        }
        lb_prefetch_stop(prefetch);
        assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
        if (round > 0) {
            const size_t peak = lb_ledger_peak_on(0, phases[round - 1], LB_COMPONENT_FRAMES);
            print_message("limit %zu peak %zu\n", params.max_bytes, peak);
            assert_true(peak <= params.max_bytes);
            assert_true(peak >= largest);
        }
    }
    lb_ledger_phase(LB_PHASE_LOAD);
    assert_true(all > 0);
}

/* The first clip's size is known late: those behind it are ready and fill the limit by then, make way, and are made
 * again. */
static void test_those_behind_make_way(void **state) {
    (void)state;
    char slow[] = "/tmp/lowbeam-slow-XXXXXX";
    int fd = mkstemp(slow);
    static const char text[] = "#!/bin/sh\nsleep 1\nexec \"$LOWBEAM_DECODE\"\n"; /* ctest sets that */
    assert_true(fd >= 0 && write(fd, text, strlen(text)) > 0);
    fchmod(fd, 0755);
    close(fd);
    glob_t videos; /* any of the samples, from the folder of the pictures */
    assert_int_equal(glob("../../samples/videos/*.mp4", 0, NULL, &videos), 0);
    char video[256];
    snprintf(video, sizeof video, "../%s", videos.gl_pathv[0]);
    globfree(&videos);
    const char *const paths[] = {video, "rgb.jpg", "grey.jpg", "422.jpg"};
    lb_prefetch_params params = params_for(2, 4);
    params.allow_outside = true;
    params.clip.frames.decoder_path = slow;
    for (int round = 0; round < 2; round++) {
        lb_ledger_phase(round == 0 ? LB_PHASE_LOAD : LB_PHASE_GENERATE);
        lb_prefetch *prefetch = start(paths, 4, &params);
        size_t ready = 0;
        for (int i = 0; i < 50 && round == 1 && ready == 0; i++, usleep(10000))
            ready = lb_ledger_get(LB_COMPONENT_FRAMES); /* those behind, while the decoder sleeps */
        for (size_t i = 0; i < 4; i++) {
            lb_clip *clip;
            lb_error error = {0};
            if (lb_prefetch_take(prefetch, i, &clip, &error) != LB_STATUS_OK)
                fail_msg("%s", error.message);
            if (i == 0)
                params.max_bytes = clip_bytes(clip); /* of the next round: it, and nothing beside it */
            lb_prefetch_give_back(prefetch, clip);
        }
        lb_prefetch_stop(prefetch);
        assert_true(round == 0 || ready > 0);
    }
    assert_int_equal(lb_ledger_peak_on(0, LB_PHASE_GENERATE, LB_COMPONENT_FRAMES), params.max_bytes);
    lb_ledger_phase(LB_PHASE_LOAD);
    unlink(slow);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
}

static void test_larger_than_the_limit_fails_alone(void **state) {
    (void)state;
    static const char *const paths[] = {"rgb.jpg", "grey.jpg"};
    lb_prefetch_params params = params_for(2, 2);
    params.max_bytes = 1000;
    lb_prefetch *prefetch = start(paths, 2, &params);
    for (size_t i = 0; i < 2; i++) {
        lb_clip *clip;
        lb_error error = {0};
        assert_int_equal(lb_prefetch_take(prefetch, i, &clip, &error), LB_STATUS_DOES_NOT_FIT);
        assert_null(clip);
        assert_non_null(strstr(error.message, "--cache"));
        assert_non_null(strstr(error.message, paths[i]));
    }
    lb_prefetch_stop(prefetch);
    assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order_each_once),
        cmocka_unit_test(test_resized_for_the_detector),
        cmocka_unit_test(test_stop_before_anything_is_taken),
        cmocka_unit_test(test_more_threads_than_clips),
        cmocka_unit_test(test_stop_does_not_wait_for_a_decoder_that_hangs),
        cmocka_unit_test(test_cancel_ends_the_wait),
        cmocka_unit_test(test_time_limit_is_the_clips_failure),
        cmocka_unit_test(test_a_hang_does_not_stop_the_others),
        cmocka_unit_test(test_never_more_than_the_limit),
        cmocka_unit_test(test_those_behind_make_way),
        cmocka_unit_test(test_larger_than_the_limit_fails_alone),
    };
    return cmocka_run_group_tests(tests, make_script, remove_script);
}
