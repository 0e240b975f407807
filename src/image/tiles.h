/* From a frame to the tiles that the vision encoder sees, bit for bit as InternVL's preprocessing does it with Pillow.
 *
 * Takes: RGB frames (image.h). Gives: square RGB tiles, 8 bit, [n_tiles][size][size][3] (x and channel fastest).
 *
 *     lb_tile_grid grid;
 *     lb_tile_grid_choose(view.width, view.height, 12, 448, &grid);
 *     uint8_t *tiles = malloc((size_t)grid.n_tiles * 448 * 448 * 3);
 *     lb_tiles_cut(view, grid, 448, tiles, &error);
 */
#ifndef LB_IMAGE_TILES_H
#define LB_IMAGE_TILES_H

#include "image/image.h"
#include "lowbeam/status.h"

/* Pillow's Image.resize, 8-bit RGB: two passes of 8-bit fixed-point convolution with antialiasing (Resample.c:
 * PRECISION_BITS = 32 - 8 - 2). Same bytes as Pillow 13 for every size. The horizontal pass is first unless more than
 * twice as many rows as columns are taken away: since Pillow 13.0 the vertical one is first then, which changes some
 * bytes by a few levels for portrait pictures and for tall crops. Pillow before 13 was always horizontal first
 * (12.2 and 12.3 but for pictures over 100 times as tall as wide). */
typedef enum lb_resize_filter {
    LB_RESIZE_FILTER_BICUBIC, /* a = -0.5, support 2: Image.resize's default, the tiles' filter */
    LB_RESIZE_FILTER_BILINEAR /* support 1: the detector's preprocessing */
} lb_resize_filter;

/* out: [height][width][3], caller's, not overlapping source. Bytes between a row's end and the stride may be read, and
 * change nothing. Memory: a few rows, 2 * filter height + 32, and the weights. Errors: INVALID_ARGUMENT (a size below 1
 * or above 16,777,216), OUT_OF_MEMORY. */
lb_status lb_image_resize(lb_image_view source, int width, int height, lb_resize_filter filter, uint8_t *out,
                          lb_error *error);

typedef struct lb_tile_grid {
    int columns, rows; /* i, j: the frame is resized to (size * i, size * j) */
    int n_tiles;       /* columns * rows, and one more, the thumbnail, when that is above 1 */
} lb_tile_grid;

/* InternVL's find_closest_aspect_ratio: over all (i, j) with 1 <= i*j <= max_tiles, ordered by i*j (the order of
 * equal products makes no difference: tiles.c says why), the one whose i/j is closest to width/height; a later one with
 * an equal difference wins when width * height > 0.5 * size * size * i * j. Errors: INVALID_ARGUMENT (a size below 1,
 * max_tiles outside 1..LB_TILES_MAX). */
#define LB_TILES_MAX 64
lb_status lb_tile_grid_choose(int width, int height, int max_tiles, int size, lb_tile_grid *grid, lb_error *error);

/* Resizes the whole frame to (size * columns, size * rows), bicubic, cuts it row by row, then adds the thumbnail
 * (the whole frame at size x size) when there is more than one tile. out: [grid.n_tiles][size][size][3].
 * Errors: INVALID_ARGUMENT (a grid that lb_tile_grid_choose does not give, a size outside 1..262,144), OUT_OF_MEMORY.
 */
lb_status lb_tiles_cut(lb_image_view frame, lb_tile_grid grid, int size, uint8_t *out, lb_error *error);

/* One detector crop as one tile: the box [x0,y0,x1,y1) in pixels of the frame, which may reach outside it (there it
 * is black, as Image.crop fills), resized to size x size, bicubic. out: [size][size][3].
 * Errors: INVALID_ARGUMENT (a box without area, or above 65,535 pixels a side), OUT_OF_MEMORY. */
lb_status lb_tile_crop(lb_image_view frame, const int box[4], int size, uint8_t *out, lb_error *error);

#endif
