/* Pictures: 8-bit RGB, rows from the top, x fastest, then y; red first. */
#ifndef LB_IMAGE_IMAGE_H
#define LB_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

/* Borrowed pixels: pixel (x, y) is data[y * stride + 3 * x .. + 2]. */
typedef struct lb_image_view {
    const uint8_t *data;
    int width, height; /* pixels, both >= 1 */
    size_t stride;     /* bytes from one row to the next, >= 3 * width */
} lb_image_view;

#endif
