/* Resizes, tiles and crops against Pillow's bytes (ref/tiles.ref, written by ref/make_tiles.py), the vectorised kernels
 * against the scalar ones, and what hostile sizes and boxes do. Bytes must be equal: all is integer arithmetic. */
#include "image/resize_internal.h"
#include "image/tiles.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BICUBIC, BILINEAR, OLD_ORDER, TILES, CROP };

static void *allocate(size_t n) {
    void *data = malloc(n ? n : 1);
    assert_non_null(data);
    return data;
}

/* As picture() in ref/make_tiles.py. Exactly as many bytes as a view promises, for AddressSanitizer. */
static lb_image_view picture(int width, int height, size_t padding) {
    const size_t stride = 3 * (size_t)width + padding, n = stride * (size_t)height - padding;
    uint8_t *data = allocate(n);
    memset(data, 0xA5, n);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                const int blocks = x >= width / 2;
                uint32_t v = (uint32_t)(blocks ? (y / 3 * 65536LL + x / 4) * 3 + c : (y * 65536LL + x) * 3 + c) + 1;
                v *= 2654435761u;
                v ^= v >> 15;
                v *= 2246822519u;
                v >>= 24;
                data[(size_t)y * stride + 3 * (size_t)x + (size_t)c] = (uint8_t)(blocks ? (v > 127) * 255 : v);
            }
    return (lb_image_view){.data = data, .width = width, .height = height, .stride = stride};
}

static void picture_free(lb_image_view view) {
    free((void *)(uintptr_t)view.data);
}

static uint64_t fnv1a(const uint8_t *data, size_t n) {
    uint64_t value = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++)
        value = (value ^ data[i]) * 0x100000001B3u;
    return value;
}

static size_t count_different(const uint8_t *a, const uint8_t *b, size_t n) {
    size_t different = 0;
    for (size_t i = 0; i < n; i++)
        different += a[i] != b[i];
    return different;
}

static lb_status resize(lb_image_view view, int width, int height, lb_resize_filter filter, lb_resize_order order,
                        const lb_resize_kernels *kernels, uint8_t *out, lb_error *error) {
    const long long box[4] = {0, 0, view.width, view.height};
    const lb_resize_sink sink = {.out = out, .tile_width = width, .tile_height = height, .n_columns = 1};
    return lb_resize_region(view, box, width, height, filter, order, kernels, sink, error);
}

enum { N_KERNELS = 3 };
/* All kernels that this CPU can run come first; the rest is NULL. */
static int all_kernels(const lb_resize_kernels *kernels[N_KERNELS]) {
    const lb_resize_kernels *const vectorised[] = {lb_resize_kernels_avx2(), lb_resize_kernels_avx512()};
    int n = 0;
    kernels[n++] = &lb_resize_kernels_scalar;
    for (int i = 0; i < 2; i++)
        if (vectorised[i])
            kernels[n++] = vectorised[i];
    return n;
}

/* Runs one case of tiles.ref; the caller frees *out. */
static lb_status run_case(const int32_t *record, lb_image_view view, const lb_resize_kernels *kernels, uint8_t **out,
                          size_t *out_bytes, lb_error *error) {
    const int32_t operation = record[0], *a = record + 3;
    lb_tile_grid grid = {0};
    lb_status status;
    switch (operation) {
    case TILES:
        status = lb_tile_grid_choose(view.width, view.height, a[0], a[1], &grid, error);
        *out_bytes = 3 * (size_t)grid.n_tiles * (size_t)a[1] * (size_t)a[1];
        *out = allocate(*out_bytes);
        return status == LB_STATUS_OK ? lb_tiles_cut(view, grid, a[1], *out, error) : status;
    case CROP:
        *out_bytes = 3 * (size_t)a[4] * (size_t)a[4];
        *out = allocate(*out_bytes);
        return lb_tile_crop(view, a, a[4], *out, error);
    default:
        *out_bytes = 3 * (size_t)a[0] * (size_t)a[1];
        *out = allocate(*out_bytes);
        return resize(view, a[0], a[1], operation == BILINEAR ? LB_RESIZE_FILTER_BILINEAR : LB_RESIZE_FILTER_BICUBIC,
                      operation == OLD_ORDER ? LB_RESIZE_ORDER_HORIZONTAL_FIRST : LB_RESIZE_ORDER_PILLOW_13, kernels,
                      *out, error);
    }
}

static void test_reference(void **state) {
    (void)state;
    FILE *file = fopen("ref/tiles.ref", "rb");
    if (!file)
        fail_msg("ref/tiles.ref: cannot be opened; run the test in tests/image");
    char head[65] = "";
    int32_t n_cases = 0;
    assert_int_equal(fread(head, 64, 1, file), 1);
    assert_memory_equal(head, "LBTILES1 ", 9);
    assert_int_equal(fread(&n_cases, sizeof n_cases, 1, file), 1);
    const lb_resize_kernels *kernels[N_KERNELS] = {NULL};
    const int n_kernels = all_kernels(kernels);
    size_t bytes = 0, different = 0, wrong = 0;
    for (int i = 0; i < n_cases; i++) {
        int32_t record[9];
        uint64_t hash;
        assert_int_equal(fread(record, sizeof record, 1, file), 1);
        assert_int_equal(fread(&hash, sizeof hash, 1, file), 1);
        const lb_image_view view = picture(record[1], record[2], (size_t)(i % 3) * 5);
        uint8_t *wanted = NULL;
        /* Tiles and crops always go through the best kernels: once is enough. */
        for (int k = 0; k < (record[0] == TILES || record[0] == CROP ? 1 : n_kernels); k++) {
            lb_error error = {0};
            uint8_t *out = NULL;
            size_t n = 0;
            const lb_status status = run_case(record, view, kernels[k], &out, &n, &error);
            if (status != LB_STATUS_OK)
                fail_msg("case %d: %s", i, error.message);
            if (record[8] && !wanted) {
                wanted = allocate(n);
                assert_int_equal(fread(wanted, n, 1, file), 1);
            }
            const size_t differs = wanted ? count_different(out, wanted, n) : 0;
            if (differs || fnv1a(out, n) != hash) {
                printf("case %d (operation %d, %dx%d, %d %d %d %d %d), %s kernels: ", i, record[0], record[1],
                       record[2], record[3], record[4], record[5], record[6], record[7], kernels[k]->name);
                wanted ? printf("%zu of %zu bytes differ\n", differs, n) : printf("the hash of %zu bytes differs\n", n);
                wrong++;
            }
            bytes += n;
            different += differs;
            free(out);
        }
        free(wanted);
        picture_free(view);
    }
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
    printf("%s: %d cases, kernels up to %s, %zu bytes: %zu differ, %zu cases wrong (limit 0)\n", head + 9, n_cases,
           kernels[n_kernels - 1]->name, bytes, different, wrong);
    assert_int_equal(wrong, 0);
}

static uint32_t next_random(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void test_kernels_agree(void **state) {
    (void)state;
    const lb_resize_kernels *kernels[N_KERNELS] = {NULL};
    const int n_kernels = all_kernels(kernels);
    if (n_kernels == 1) {
        printf("skipped: this CPU has no vectorised kernels\n");
        skip();
    }
    uint32_t seed = 7;
    size_t different = 0, bytes = 0;
    for (int i = 0; i < 300; i++) {
        const int width = 1 + (int)(next_random(&seed) % 90), height = 1 + (int)(next_random(&seed) % 90);
        const int to_width = 1 + (int)(next_random(&seed) % 70), to_height = 1 + (int)(next_random(&seed) % 70);
        /* Boxes that lie inside, reach outside, or miss the frame. */
        const long long box[4] = {(int)(next_random(&seed) % 120) - 50, (int)(next_random(&seed) % 120) - 50,
                                  1 + next_random(&seed) % 150, 1 + next_random(&seed) % 150};
        const lb_image_view view = picture(width, height, next_random(&seed) % 4);
        const size_t n = 3 * (size_t)to_width * (size_t)to_height;
        uint8_t *scalar = NULL;
        for (int k = 0; k < n_kernels; k++) {
            uint8_t *out = allocate(n);
            const lb_resize_sink sink = {out, to_width, to_height, 1};
            assert_int_equal(lb_resize_region(view, box, to_width, to_height, (lb_resize_filter)(i & 1),
                                              (lb_resize_order)(i >> 1 & 1), kernels[k], sink, NULL),
                             LB_STATUS_OK);
            if (!scalar) {
                scalar = out;
                continue;
            }
            const size_t differs = count_different(out, scalar, n);
            if (differs)
                printf("%s kernels, %dx%d, box %lld %lld %lldx%lld to %dx%d: %zu of %zu bytes differ\n",
                       kernels[k]->name, width, height, box[0], box[1], box[2], box[3], to_width, to_height, differs,
                       n);
            different += differs;
            bytes += n;
            free(out);
        }
        free(scalar);
        picture_free(view);
    }
    printf("kernels up to %s against scalar ones: %zu bytes, %zu differ (limit 0)\n", kernels[n_kernels - 1]->name,
           bytes, different);
    assert_int_equal(different, 0);
}

static void test_grids(void **state) {
    (void)state;
    static const struct {
        int width, height, max_tiles, columns, rows, n_tiles;
    } cases[] = {
        {1920, 1080, 1, 1, 1, 1},
        {1920, 1080, 2, 2, 1, 3},
        {1920, 1080, 7, 2, 1, 3},
        {1920, 1080, 8, 4, 2, 9},
        {1920, 1080, 12, 4, 2, 9},
        {1120, 448, 10, 5, 2, 11},
        {1080, 1920, 12, 2, 4, 9},
        {448, 448, 12, 1, 1, 1},
        {100, 100, 12, 1, 1, 1},
        {20000, 1, 12, 12, 1, 13},
        {1, 10000, 12, 1, 12, 13},
        {INT_MAX, 1, 64, 64, 1, 65},
        {1, INT_MAX, 64, 1, 64, 65},
        {INT_MAX, INT_MAX, 4, 2, 2, 5},
        /* The area decides between equal ratios: 2x2 above 0.5 * 448 * 448 * 4 pixels, that is 633.6 a side. */
        {633, 633, 4, 1, 1, 1},
        {634, 634, 4, 2, 2, 5},
        /* 1.5 lies between 1x1 and 2x1; large enough, the later one wins. */
        {600, 400, 2, 2, 1, 3},
        {300, 200, 2, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lb_tile_grid grid;
        assert_int_equal(lb_tile_grid_choose(cases[i].width, cases[i].height, cases[i].max_tiles, 448, &grid, NULL),
                         LB_STATUS_OK);
        if (grid.columns != cases[i].columns || grid.rows != cases[i].rows || grid.n_tiles != cases[i].n_tiles)
            fail_msg("%dx%d, up to %d tiles: grid %dx%d with %d tiles, expected %dx%d with %d", cases[i].width,
                     cases[i].height, cases[i].max_tiles, grid.columns, grid.rows, grid.n_tiles, cases[i].columns,
                     cases[i].rows, cases[i].n_tiles);
    }
}

static void test_refusals(void **state) {
    (void)state;
    const lb_image_view view = picture(8, 8, 0);
    uint8_t out[3 * 4 * 4];
    lb_error error = {0};
    lb_tile_grid grid;
    static const int sizes[][4] = {
        {0, 1, 1, 448}, {1, -1, 1, 448}, {1, 1, 0, 448}, {1, 1, LB_TILES_MAX + 1, 448}, {1, 1, 1, 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(lb_tile_grid_choose(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], &grid, &error),
                         LB_STATUS_INVALID_ARGUMENT);
        assert_int_equal(grid.n_tiles, 0);
    }
    static const int boxes[][4] = {{0, 0, 0, 4},
                                   {0, 0, 4, 0},
                                   {4, 0, 0, 4},
                                   {INT_MIN, 0, INT_MAX, 4},
                                   {0, INT_MIN, 4, INT_MAX},
                                   {INT_MAX, INT_MAX, INT_MIN, INT_MIN},
                                   {0, 0, 65536, 4},
                                   {0, 0, 4, 65536}};
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++)
        assert_int_equal(lb_tile_crop(view, boxes[i], 4, out, &error), LB_STATUS_INVALID_ARGUMENT);
    const int whole[4] = {0, 0, 8, 8};
    assert_int_equal(lb_tile_crop(view, whole, 0, out, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_image_resize(view, 0, 4, LB_RESIZE_FILTER_BICUBIC, out, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_image_resize(view, 4, INT_MAX, LB_RESIZE_FILTER_BICUBIC, out, &error),
                     LB_STATUS_INVALID_ARGUMENT);
    const lb_image_view narrow = {.data = view.data, .width = 8, .height = 8, .stride = 23};
    assert_int_equal(lb_image_resize(narrow, 4, 4, LB_RESIZE_FILTER_BICUBIC, out, &error), LB_STATUS_INVALID_ARGUMENT);
    static const lb_tile_grid grids[] = {{0, 1, 1}, {1, 0, 1}, {2, 1, 2}, {65, 1, 66}, {INT_MAX, INT_MAX, 1},
                                         {1, 1, 2}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        assert_int_equal(lb_tiles_cut(view, grids[i], 4, out, &error), LB_STATUS_INVALID_ARGUMENT);
    assert_int_equal(lb_tiles_cut(view, (lb_tile_grid){64, 1, 65}, INT_MAX / 2, out, &error),
                     LB_STATUS_INVALID_ARGUMENT);
    printf("a refusal reads: %s\n", error.message);
    picture_free(view);
}

static void test_crops_beside_the_frame_are_black(void **state) {
    (void)state;
    const lb_image_view view = picture(8, 8, 0);
    static const int boxes[][4] = {{8, 0, 16, 8},
                                   {0, -9, 8, 0},
                                   {INT_MIN, INT_MIN, INT_MIN + 65535, INT_MIN + 65535},
                                   {INT_MAX - 65535, INT_MAX - 9, INT_MAX, INT_MAX}};
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
        uint8_t out[3 * 16 * 16];
        memset(out, 1, sizeof out);
        assert_int_equal(lb_tile_crop(view, boxes[i], 16, out, NULL), LB_STATUS_OK);
        for (size_t n = 0; n < sizeof out; n++)
            assert_int_equal(out[n], 0);
    }
    picture_free(view);
}

typedef struct cut_job {
    lb_image_view view;
    lb_tile_grid grid;
    uint8_t *out;
    lb_status status;
} cut_job;

static void *cut(void *data) {
    cut_job *job = data;
    job->status = lb_tiles_cut(job->view, job->grid, 56, job->out, NULL);
    return NULL;
}

/* Frames are cut on several threads at once; -fsanitize=thread watches this. */
static void test_threads(void **state) {
    (void)state;
    enum { N = 4 };
    const lb_image_view view = picture(320, 180, 0);
    cut_job jobs[N];
    pthread_t threads[N];
    size_t n = 0;
    for (int i = 0; i < N; i++) {
        jobs[i] = (cut_job){.view = view};
        assert_int_equal(lb_tile_grid_choose(view.width, view.height, 12, 56, &jobs[i].grid, NULL), LB_STATUS_OK);
        n = 3 * (size_t)jobs[i].grid.n_tiles * 56 * 56;
        jobs[i].out = allocate(n);
        assert_int_equal(pthread_create(&threads[i], NULL, cut, &jobs[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(jobs[i].status, LB_STATUS_OK);
        assert_int_equal(count_different(jobs[i].out, jobs[0].out, n), 0);
    }
    for (int i = 0; i < N; i++)
        free(jobs[i].out);
    picture_free(view);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_kernels_agree),
        cmocka_unit_test(test_grids),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_crops_beside_the_frame_are_black),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
