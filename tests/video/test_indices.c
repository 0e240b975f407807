/* lb_frame_indices against InternVL's get_index in Python floats, with NumPy's round (halves to even): the rows below
 * were printed by that function (see tests/checks/check_frames.py, formula). */
#include "video/video.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

typedef struct expectation {
    int64_t n_total;
    int n;
    double fps, from_s, to_s; /* fps 0: without bound */
    int64_t index[16];
} expectation;

static const expectation table[] = {
    {1, 8, 0.0, 0.0, 0.0, {0, 0, 0, 0, 0, 0, 0, 0}},
    {2, 8, 0.0, 0.0, 0.0, {0, 0, 0, 0, 0, 1, 1, 1}},
    {3, 8, 0.0, 0.0, 0.0, {0, 0, 0, 1, 1, 1, 2, 2}},
    {5, 8, 0.0, 0.0, 0.0, {0, 0, 1, 2, 2, 2, 3, 4}},
    {8, 8, 0.0, 0.0, 0.0, {0, 1, 2, 3, 4, 4, 5, 6}},
    {9, 8, 0.0, 0.0, 0.0, {0, 1, 2, 3, 4, 5, 6, 7}},
    {17, 8, 0.0, 0.0, 0.0, {1, 3, 5, 7, 9, 11, 13, 15}},
    {90, 8, 0.0, 0.0, 0.0, {5, 16, 27, 38, 49, 61, 72, 83}},
    {101, 8, 0.0, 0.0, 0.0, {6, 18, 31, 44, 56, 68, 81, 94}},
    {250, 8, 0.0, 0.0, 0.0, {15, 46, 77, 108, 139, 171, 202, 233}},
    {300, 8, 0.0, 0.0, 0.0, {18, 55, 93, 130, 168, 205, 242, 280}},
    {1801, 8, 0.0, 0.0, 0.0, {112, 337, 562, 787, 1012, 1237, 1462, 1687}},
    {21, 8, 0.0, 0.0, 0.0, {1, 3, 6, 9, 11, 13, 16, 19}},
    {6, 2, 0.0, 0.0, 0.0, {1, 3}},
    {4, 2, 0.0, 0.0, 0.0, {0, 2}},
    {13, 8, 0.0, 0.0, 0.0, {0, 2, 3, 4, 6, 8, 9, 10}},
    {12345,
     16,
     0.0,
     0.0,
     0.0,
     {385, 1157, 1928, 2699, 3471, 4243, 5014, 5785, 6557, 7329, 8100, 8871, 9643, 10415, 11186, 11957}},
    {107893,
     13,
     0.0,
     0.0,
     0.0,
     {4149, 12448, 20748, 29047, 37347, 45646, 53945, 62245, 70544, 78843, 87143, 95442, 103742}},
    {5, 1, 0.0, 0.0, 0.0, {2}},
    {37, 16, 0.0, 0.0, 0.0, {1, 3, 5, 8, 10, 12, 15, 17, 19, 21, 23, 26, 28, 30, 33, 35}},
    {25, 16, 0.0, 0.0, 0.0, {0, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21, 22}},
    {41, 16, 0.0, 0.0, 0.0, {1, 3, 6, 9, 11, 13, 16, 19, 21, 23, 26, 29, 31, 33, 36, 39}},
    {300, 8, 30.0, 1.0, 5.0, {37, 52, 67, 82, 97, 112, 127, 142}},
    {300, 8, 29.97002997002997, 1.5, 5.25, {52, 66, 80, 94, 108, 122, 136, 150}},
    {250, 8, 25.0, 0.1, 0.3, {2, 3, 4, 4, 5, 6, 6, 7}},
    {250, 8, 25.0, 0.02, 9.9, {15, 46, 77, 108, 139, 170, 201, 232}},
    {250, 8, 25.0, -3.0, 4.0, {6, 18, 31, 44, 56, 68, 81, 94}},
    {250, 8, 25.0, 9.5, 100.0, {238, 239, 241, 242, 244, 245, 246, 248}},
    {1000,
     16,
     59.94005994005994,
     3.3,
     12.7,
     {215, 250, 285, 321, 356, 391, 426, 461, 497, 532, 567, 602, 637, 672, 708, 743}},
    {100, 4, 10.0, 0.25, 0.95, {3, 5, 7, 9}},
    {100, 4, 10.0, 0.35, 0.45, {4, 4, 4, 4}},
    {100, 3, 12.5, 1.0, 2.6, {15, 22, 28}},
    {500, 8, 30.0, 0.08333333333333333, 0.2833333333333333, {2, 3, 4, 4, 5, 6, 6, 7}},
};

static void formula_is_the_reference_s(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const expectation *e = &table[i];
        lb_frames_params params = lb_frames_default_params();
        params.n_frames = e->n;
        params.bounded = e->fps > 0;
        if (params.bounded) {
            params.from_s = e->from_s;
            params.to_s = e->to_s;
        }
        int64_t index[16];
        lb_error error = {0};
        if (lb_frame_indices(e->n_total, e->fps, &params, index, &error) != LB_STATUS_OK)
            fail_msg("row %zu: %s", i, error.message);
        for (int k = 0; k < e->n; k++)
            if (index[k] != e->index[k])
                fail_msg("row %zu, frame %d: %lld, expected %lld", i, k, (long long)index[k], (long long)e->index[k]);
    }
}

static void indices_ascend_and_stay_inside(void **state) {
    (void)state;
    for (int64_t n_total = 1; n_total < 300; n_total++) {
        for (int n = 1; n < 40; n++) {
            lb_frames_params params = lb_frames_default_params();
            params.n_frames = n;
            int64_t index[40];
            assert_int_equal(lb_frame_indices(n_total, 0, &params, index, NULL), LB_STATUS_OK);
            for (int k = 0; k < n; k++)
                if (index[k] < (k ? index[k - 1] : 0) || index[k] >= n_total)
                    fail_msg("%lld frames, %d wanted: index %d is %lld", (long long)n_total, n, k, (long long)index[k]);
        }
    }
}

static lb_status with_bound(int64_t n_total, double fps, double from_s, double to_s) {
    lb_frames_params params = lb_frames_default_params();
    params.bounded = true;
    params.from_s = from_s;
    params.to_s = to_s;
    int64_t index[8];
    return lb_frame_indices(n_total, fps, &params, index, NULL);
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    int64_t index[8];
    lb_frames_params params = lb_frames_default_params();
    assert_int_equal(lb_frame_indices(0, 30, &params, index, NULL), LB_STATUS_INVALID_ARGUMENT);
    params.n_frames = 0;
    assert_int_equal(lb_frame_indices(10, 30, &params, index, NULL), LB_STATUS_INVALID_ARGUMENT);
    params.n_frames = 1025;
    assert_int_equal(lb_frame_indices(10, 30, &params, index, NULL), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 30, 2, 2), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 30, 3, 2), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 30, 50, 60), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 30, -5, -1), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 30, NAN, 2), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 0, 0, 2), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, NAN, 0, 2), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(with_bound(100, 30, -INFINITY, INFINITY), LB_STATUS_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formula_is_the_reference_s),
        cmocka_unit_test(indices_ascend_and_stay_inside),
        cmocka_unit_test(wrong_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
