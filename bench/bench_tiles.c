/* The functions that bench_tiles.py times, made visible: compiled by it into a small shared object with the build's
 * liblowbeam_core.a. Each returns 0, or the lb_status as an int. */
#include "image/resize_internal.h"
#include "image/tiles.h"

LB_API int bench_resize(const uint8_t *pixels, int width, int height, int to_width, int to_height, int bilinear,
                        int scalar, uint8_t *out) {
    const lb_image_view view = {.data = pixels, .width = width, .height = height, .stride = 3 * (size_t)width};
    const long long box[4] = {0, 0, width, height};
    const lb_resize_sink sink = {.out = out, .tile_width = to_width, .tile_height = to_height, .n_columns = 1};
    return (int)lb_resize_region(
        view, box, to_width, to_height, bilinear ? LB_RESIZE_FILTER_BILINEAR : LB_RESIZE_FILTER_BICUBIC,
        LB_RESIZE_ORDER_DEFAULT, scalar ? &lb_resize_kernels_scalar : lb_resize_kernels_best(), sink, NULL);
}

LB_API int bench_tiles(const uint8_t *pixels, int width, int height, int max_tiles, int size, uint8_t *out) {
    const lb_image_view view = {.data = pixels, .width = width, .height = height, .stride = 3 * (size_t)width};
    lb_tile_grid grid;
    const lb_status status = lb_tile_grid_choose(width, height, max_tiles, size, &grid, NULL);
    return (int)(status == LB_STATUS_OK ? lb_tiles_cut(view, grid, size, out, NULL) : status);
}

LB_API int bench_crop(const uint8_t *pixels, int width, int height, int x0, int y0, int x1, int y1, int size,
                      uint8_t *out) {
    const lb_image_view view = {.data = pixels, .width = width, .height = height, .stride = 3 * (size_t)width};
    const int box[4] = {x0, y0, x1, y1};
    return (int)lb_tile_crop(view, box, size, out, NULL);
}

LB_API const char *bench_kernels(void) {
    return lb_resize_kernels_best()->name;
}
