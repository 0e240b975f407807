/* Tiles, crops and resizes for tests/checks/check_tiles.py, one after the other.
 *
 * stdin, as often as wanted: int32 [10] operation, width, height, padding (bytes after each row), five arguments,
 * variant; then height rows of 3 * width + padding bytes.
 *
 * stdout: int32 [4] status, columns, rows, n_tiles, then the bytes of the result (none when status is not 0).
 *
 * - operation 0, 1: resize bicubic, bilinear to arguments 0 x 1
 * - operation 2: tiles of up to argument 0, of argument 1 pixels
 * - operation 3: crop of box arguments 0..3 to argument 4 pixels
 * - operation 4: the grid alone, no rows follow; arguments as for 2
 *
 * variant, for resizes: 0 the best kernels, 1 scalar, 2 AVX2 (the best where the CPU has none); 4 more for the order of
 * the passes in Pillow before 13.
 */
#include "image/resize_internal.h"
#include "image/tiles.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "dump_tiles: %s\n", what);
    exit(1);
}

static void *allocate(size_t n) {
    void *data = malloc(n ? n : 1);
    if (!data)
        fail("out of memory");
    return data;
}

static const lb_resize_kernels *kernels(int which) {
    if (which == 1)
        return &lb_resize_kernels_scalar;
    return which == 2 && lb_resize_kernels_avx2() ? lb_resize_kernels_avx2() : lb_resize_kernels_best();
}

int main(void) {
    int32_t request[10];
    while (fread(request, sizeof request, 1, stdin) == 1) {
        const int32_t operation = request[0], *argument = request + 4;
        lb_error error = {0};
        lb_tile_grid grid = {0};
        lb_status status = LB_STATUS_OK;
        uint8_t *pixels = NULL, *out = NULL;
        size_t out_bytes = 0;
        lb_image_view view = {.width = request[1], .height = request[2]};
        if (view.width < 1 || view.height < 1 || request[3] < 0)
            fail("a request without pixels");
        view.stride = 3 * (size_t)view.width + (size_t)request[3];
        if (operation != 4) {
            /* Exactly the bytes that a view promises, so that a read past them is seen by AddressSanitizer. */
            const size_t n = view.stride * (size_t)view.height;
            pixels = allocate(n - (size_t)request[3]);
            view.data = pixels;
            if (fread(pixels, n - (size_t)request[3], 1, stdin) != 1)
                fail("a request ends early");
            for (int i = 0; i < request[3]; i++)
                getchar();
        }
        if (operation == 0 || operation == 1) {
            const long long box[4] = {0, 0, view.width, view.height};
            out_bytes = 3 * (size_t)argument[0] * (size_t)argument[1];
            out = allocate(out_bytes);
            const lb_resize_sink sink = {out, argument[0], argument[1], 1};
            const lb_resize_filter filter = operation ? LB_RESIZE_FILTER_BILINEAR : LB_RESIZE_FILTER_BICUBIC;
            const lb_resize_order order = request[9] & 4 ? LB_RESIZE_ORDER_HORIZONTAL_FIRST : LB_RESIZE_ORDER_PILLOW_13;
            status = lb_resize_region(view, box, argument[0], argument[1], filter, order, kernels(request[9] & 3), sink,
                                      &error);
        } else if (operation == 2 || operation == 4) {
            status = lb_tile_grid_choose(view.width, view.height, argument[0], argument[1], &grid, &error);
            if (status == LB_STATUS_OK && operation == 2) {
                out_bytes = 3 * (size_t)grid.n_tiles * (size_t)argument[1] * (size_t)argument[1];
                out = allocate(out_bytes);
                status = lb_tiles_cut(view, grid, argument[1], out, &error);
            }
        } else if (operation == 3) {
            out_bytes = 3 * (size_t)argument[4] * (size_t)argument[4];
            out = allocate(out_bytes);
            status = lb_tile_crop(view, argument, argument[4], out, &error);
        } else {
            fail("an unknown operation");
        }
        if (status != LB_STATUS_OK)
            fprintf(stderr, "dump_tiles: %s\n", error.message);
        const int32_t answer[4] = {(int32_t)status, grid.columns, grid.rows, grid.n_tiles};
        if (fwrite(answer, sizeof answer, 1, stdout) != 1 ||
            (status == LB_STATUS_OK && out_bytes && fwrite(out, out_bytes, 1, stdout) != 1) || fflush(stdout))
            fail("cannot write the answer");
        free(pixels);
        free(out);
    }
    return 0;
}
