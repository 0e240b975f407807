/* InternVL's dynamic_preprocess (OpenGVLab's model card, min_num = 1) on top of the resize. */
#include "image/tiles.h"

#include "base/error.h"
#include "image/resize_internal.h"

#include <math.h>

#define CROP_MAX_SIDE 65535

lb_status lb_tile_grid_choose(int width, int height, int max_tiles, int size, lb_tile_grid *grid, lb_error *error) {
    *grid = (lb_tile_grid){0};
    if (width < 1 || height < 1 || size < 1 || max_tiles < 1 || max_tiles > LB_TILES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "no tile grid for a picture of %dx%d in up to %d tiles of %d pixels: sizes must be at "
                            "least 1 and the number of tiles 1 to %d",
                            width, height, max_tiles, size, LB_TILES_MAX);
    /* The reference sorts a Python set by i*j, so grids with equal i*j stand in the order of the set, and
     * transformers' list in another. It cannot matter: of two such grids (i, j) and (k, l) with i < k, and so l < j,
     * the grid (i, l) has fewer tiles and a ratio between theirs, so wherever those two are equally far from the
     * picture's ratio, (i, l) is closer. Their order here is by i. */
    const double aspect_ratio = (double)width / height, area = (double)width * height;
    double best_difference = INFINITY;
    for (int n = 1; n <= max_tiles; n++)
        for (int i = 1; i <= n; i++) {
            if (n % i)
                continue;
            const int j = n / i;
            const double difference = fabs(aspect_ratio - (double)i / j);
            if (difference < best_difference || (difference == best_difference && area > 0.5 * size * size * i * j)) {
                best_difference = difference;
                grid->columns = i;
                grid->rows = j;
            }
        }
    const int n_tiles = grid->columns * grid->rows;
    grid->n_tiles = n_tiles > 1 ? n_tiles + 1 : 1;
    return LB_STATUS_OK;
}

lb_status lb_tiles_cut(lb_image_view frame, lb_tile_grid grid, int size, uint8_t *out, lb_error *error) {
    const int n_tiles = grid.columns >= 1 && grid.columns <= LB_TILES_MAX && grid.rows >= 1 && grid.rows <= LB_TILES_MAX
                            ? grid.columns * grid.rows
                            : 0;
    if (n_tiles < 1 || n_tiles > LB_TILES_MAX || grid.n_tiles != (n_tiles > 1 ? n_tiles + 1 : 1) || size < 1 ||
        size > LB_RESIZE_MAX_SIDE / LB_TILES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "cannot cut a picture into %dx%d tiles of %d pixels, %d in all", grid.columns, grid.rows,
                            size, grid.n_tiles);
    const long long box[4] = {0, 0, frame.width, frame.height};
    lb_resize_sink sink = {.out = out, .tile_width = size, .tile_height = size, .n_columns = grid.columns};
    lb_status status = lb_resize_region(frame, box, size * grid.columns, size * grid.rows, LB_RESIZE_FILTER_BICUBIC,
                                        LB_RESIZE_ORDER_DEFAULT, lb_resize_kernels_best(), sink, error);
    if (status != LB_STATUS_OK || n_tiles == 1)
        return status;
    sink.out += (size_t)n_tiles * (size_t)size * (size_t)size * 3;
    sink.n_columns = 1;
    return lb_resize_region(frame, box, size, size, LB_RESIZE_FILTER_BICUBIC, LB_RESIZE_ORDER_DEFAULT,
                            lb_resize_kernels_best(), sink, error);
}

lb_status lb_tile_crop(lb_image_view frame, const int box[4], int size, uint8_t *out, lb_error *error) {
    const long long width = (long long)box[2] - box[0], height = (long long)box[3] - box[1];
    if (width < 1 || height < 1 || width > CROP_MAX_SIDE || height > CROP_MAX_SIDE)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "cannot crop the box [%d, %d, %d, %d]: its sides must be 1 to %d pixels", box[0], box[1],
                            box[2], box[3], CROP_MAX_SIDE);
    const long long region[4] = {box[0], box[1], width, height};
    const lb_resize_sink sink = {.out = out, .tile_width = size, .tile_height = size, .n_columns = 1};
    return lb_resize_region(frame, region, size, size, LB_RESIZE_FILTER_BICUBIC, LB_RESIZE_ORDER_DEFAULT,
                            lb_resize_kernels_best(), sink, error);
}
