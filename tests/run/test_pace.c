/* What there is time for: lb_pace_choose against a search over everything, lb_thin_next against what it promises. */
#include "run/pace.h"
#include "video/thin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static double uniform(double least, double most) {
    return least + (most - least) * rand() / RAND_MAX;
}

static void test_notes_believe_the_slower(void **state) {
    (void)state;
    double known = 0;
    lb_pace_note(&known, 2);
    assert_true(known == 2);
    lb_pace_note(&known, 3);
    assert_true(known == 3);
    lb_pace_note(&known, 1);
    assert_true(known == 2.5);
    lb_pace_note(&known, 0); /* nothing was measured */
    assert_true(known == 2.5);
}

static void test_seconds(void **state) {
    (void)state;
    const lb_pace pace = {.detect_s = 0.5, .encode_s = 0.25, .prompt_s = 0.001, .generate_s = 0.1, .new_tokens = 3};
    const lb_pace_load load = {.n_frames = 8,
                               .tiles_per_frame = 1,
                               .crops_per_frame = 5,
                               .detector_frames = 8,
                               .tokens_per_tile = 100,
                               .text_tokens = 100,
                               .max_new_tokens = 512};
    /* 4 frames: detector 2 s; 12 tiles: 3 s; 1300 tokens and 8 labels of 6: 1.348 s; 3 written: 0.3 s */
    const double seconds = lb_pace_seconds(&pace, &load, (lb_pace_share){4, 2});
    assert_true(seconds > 6.648 - 1e-9 && seconds < 6.648 + 1e-9);
    /* without crops nothing is looked for */
    const double without = lb_pace_seconds(&pace, &load, (lb_pace_share){4, 0});
    assert_true(without > 1.8 - 1e-9 && without < 1.8 + 1e-9);
}

static double worth(const lb_pace_load *load, lb_pace_share s) {
    return s.n_frames * (load->crops_per_frame ? 1 + 2.0 * s.crops_per_frame / load->crops_per_frame : 1);
}

static void test_choice_is_the_best_that_fits(void **state) {
    (void)state;
    enum { ROUNDS = 20000 };
    int n_whole = 0, n_least = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const lb_pace pace = {.detect_s = uniform(0, 1),
                              .encode_s = uniform(0, 1),
                              .prompt_s = uniform(0, 1e-2),
                              .generate_s = uniform(0, 0.1),
                              .crops = rand() % 2 ? uniform(0.5, 5) : 0};
        const lb_pace_load load = {.n_frames = 1 + rand() % 16,
                                   .tiles_per_frame = 1 + rand() % 3,
                                   .crops_per_frame = rand() % 6,
                                   .detector_frames = rand() % 2 ? 16 : 0,
                                   .tokens_per_tile = 16,
                                   .max_new_tokens = 8};
        const double left_s = uniform(0, 60);
        const lb_pace_share got = lb_pace_choose(&pace, &load, left_s);
        double best = 0;
        for (int n = 1; n <= load.n_frames; n++)
            for (int c = 0; c <= load.crops_per_frame; c++) {
                const lb_pace_share s = {n, c};
                if (lb_pace_seconds(&pace, &load, s) <= 0.85 * left_s && worth(&load, s) > best)
                    best = worth(&load, s);
            }
        assert_in_range(got.n_frames, 1, load.n_frames);
        assert_in_range(got.crops_per_frame, 0, load.crops_per_frame);
        if (best == 0) {
            assert_int_equal(got.n_frames, 1);
            assert_int_equal(got.crops_per_frame, 0);
            n_least++;
        } else {
            assert_true(worth(&load, got) == best);
        }
        n_whole += got.n_frames == load.n_frames && got.crops_per_frame == load.crops_per_frame;
    }
    print_message("%d choices are the best of all that fit; %d left nothing out, %d had no time at all\n", ROUNDS,
                  n_whole, n_least);
    assert_true(n_whole > 100 && n_least > 100);
}

/* A video of which frame i costs what lies between it and the frame before, or the last key frame between them. */
typedef struct fake_video {
    int frames_apart, key_every; /* of two slots; 0: no key frame but the first */
} fake_video;

static double cost_of(int from, int to, void *user) {
    const fake_video *v = user;
    const int here = from * v->frames_apart, there = to * v->frames_apart;
    const int key = v->key_every ? there / v->key_every * v->key_every : 0;
    return there - (key > here ? key : here);
}

/* Reads with the time for `limit` frames after the first slot. */
static int read_all(int n, fake_video *v, double limit, int *last, double *spent) {
    int n_read = 1, slot = 0;
    *spent = 0;
    *last = 0;
    for (;;) {
        const int next = lb_thin_next(slot, n, limit - *spent, cost_of, v);
        assert_true(next > slot);
        if (next >= n)
            return n_read;
        *spent += cost_of(slot, next, v);
        *last = slot = next;
        n_read++;
    }
}

static void test_frames_are_left_out_in_time(void **state) {
    (void)state;
    int n_checked = 0, n_left_out = 0;
    for (int n = 1; n <= 32; n++)
        for (int apart = 1; apart <= 40; apart += 3)
            for (int key = 0; key <= 24; key += 4)
                for (double limit = 0; limit < 600; limit += 37, n_checked++) {
                    fake_video v = {apart, key};
                    int last, far = 0;
                    double spent, all = 0;
                    const int n_read = read_all(n, &v, limit, &last, &spent);
                    assert_true(spent <= limit);
                    for (int i = 1; i < n; i++) {
                        all += cost_of(i - 1, i, &v);
                        if (cost_of(0, i, &v) <= limit)
                            far = i;
                    }
                    if (all <= limit) {
                        assert_int_equal(n_read, n);
                        continue;
                    }
                    n_left_out++;
                    assert_true(last >= far - 1 - far / 8); /* as far as there is time for, about */
                    if (key == 0 && n <= 16)                /* what lies on the way costs nothing */
                        assert_int_equal(n_read, last + 1);
                }
    print_message("%d readers kept their time, %d of them by leaving frames out\n", n_checked, n_left_out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_notes_believe_the_slower),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_choice_is_the_best_that_fits),
        cmocka_unit_test(test_frames_are_left_out_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
