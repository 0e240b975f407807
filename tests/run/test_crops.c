/* Crops cut by threads: the bytes of lb_tile_crop whatever the number of threads, in any order of waiting, and an error
 * that reaches whoever waits. */
#include "run/crops.h"

#include "image/tiles.h"
#include "memory/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { WIDTH = 97, HEIGHT = 61, SIZE = 28, N = 23 };
static uint8_t pixels[HEIGHT][WIDTH][3];

static lb_image_view view(void) {
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++)
                pixels[y][x][c] = (uint8_t)(x * 7 + y * 13 + c * 50 + x * y);
    return (lb_image_view){&pixels[0][0][0], WIDTH, HEIGHT, WIDTH * 3};
}

/* Some reach outside the frame. */
static void make(lb_crop crop[N]) {
    for (int i = 0; i < N; i++)
        crop[i] = (lb_crop){view(), {i * 3 - 10, i - 5, i * 5 + 2, 3 * i + 1}};
}

static void test_same_bytes_with_any_number_of_threads(void **state) {
    (void)state;
    lb_crop crop[N];
    make(crop);
    const size_t before = lb_ledger_get(LB_COMPONENT_FRAMES);
    for (int n_threads = 0; n_threads <= 40; n_threads = 2 * n_threads + 1) {
        lb_crops *crops;
        assert_int_equal(lb_crops_start(crop, N, SIZE, n_threads, &crops, NULL), LB_STATUS_OK);
        assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES) - before, N * SIZE * SIZE * 3);
        for (int k = 0; k < N; k++) {
            const int i = k * 7 % N; /* each once, not in their order */
            uint8_t expected[SIZE * SIZE * 3];
            assert_int_equal(lb_crops_wait(crops, i, NULL), LB_STATUS_OK);
            assert_int_equal(lb_tile_crop(crop[i].frame, crop[i].box, SIZE, expected, NULL), LB_STATUS_OK);
            assert_memory_equal(lb_crops_tile(crops, i), expected, sizeof expected);
        }
        lb_crops_free(crops);
        assert_int_equal(lb_ledger_get(LB_COMPONENT_FRAMES), before);
    }
}

static void test_freed_before_they_are_cut(void **state) {
    (void)state;
    lb_crop crop[N];
    make(crop);
    for (int n_threads = 0; n_threads < 3; n_threads++) {
        lb_crops *crops;
        assert_int_equal(lb_crops_start(crop, N, 448, n_threads, &crops, NULL), LB_STATUS_OK);
        lb_crops_free(crops);
    }
    lb_crops_free(NULL);
}

static void test_none(void **state) {
    (void)state;
    lb_crops *crops;
    assert_int_equal(lb_crops_start(NULL, 0, SIZE, 4, &crops, NULL), LB_STATUS_OK);
    lb_crops_free(crops);
}

static void test_a_crop_that_cannot_be_cut(void **state) {
    (void)state;
    for (int n_threads = 0; n_threads < 3; n_threads++) {
        lb_crop crop[N];
        make(crop);
        crop[9].box[2] = crop[9].box[0]; /* no area */
        lb_crops *crops;
        lb_error error = {0};
        assert_int_equal(lb_crops_start(crop, N, SIZE, n_threads, &crops, NULL), LB_STATUS_OK);
        assert_int_equal(lb_crops_wait(crops, 9, &error), LB_STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "box"));
        lb_crops_free(crops);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_with_any_number_of_threads),
        cmocka_unit_test(test_freed_before_they_are_cut),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_a_crop_that_cannot_be_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
