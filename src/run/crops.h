/* Crops cut to tiles by threads of their own, while somebody else reads those that are ready.
 *
 *     lb_crop crop[2] = {{view, {10, 20, 90, 80}}, ...};
 *     lb_crops *crops;
 *     lb_crops_start(crop, 2, 448, 4, &crops, &error);
 *     for (int i = 0; i < 2 && lb_crops_wait(crops, i, &error) == LB_STATUS_OK; i++)
 *         use(lb_crops_tile(crops, i));
 *     lb_crops_free(crops);
 */
#ifndef LB_RUN_CROPS_H
#define LB_RUN_CROPS_H

#include "image/image.h"
#include "lowbeam/status.h"

typedef struct lb_crop {
    lb_image_view frame; /* its pixels are read until lb_crops_free */
    int box[4];          /* [x0, y0, x1, y1) in pixels; with area; outside the frame it is black */
} lb_crop;

typedef struct lb_crops lb_crops;

/* crop: [n], copied. size: pixels a side of a tile. Cutting begins at once, in order, with up to n_threads threads;
 * when none can be started, lb_crops_wait cuts. Errors: OUT_OF_MEMORY. Memory: n tiles. */
lb_status lb_crops_start(const lb_crop *crop, int n, int size, int n_threads, lb_crops **crops, lb_error *error);

/* Where crop i is, or will be after lb_crops_wait: [size][size][3], good until lb_crops_free. */
const uint8_t *lb_crops_tile(const lb_crops *crops, int i);

/* Returns when crop i is cut; cuts another one rather than wait idly. Errors: those of lb_tile_crop. */
lb_status lb_crops_wait(lb_crops *crops, int i, lb_error *error);

/* Ends the threads. NULL is allowed. */
void lb_crops_free(lb_crops *crops);

#endif
