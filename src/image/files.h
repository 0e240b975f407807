/* PNG and JPEG files to RGB and back. Files come from strangers: sizes are checked before memory is taken. */
#ifndef LB_IMAGE_FILES_H
#define LB_IMAGE_FILES_H

#include "image/image.h"
#include "lowbeam/status.h"

/* Owned pixels, stride 3 * width. Free with lb_image_free. */
typedef struct lb_image {
    uint8_t *data;
    int width, height;
} lb_image;

/* Reads one PNG (any depth and colour type; alpha dropped as Pillow's convert("RGB") does) or JPEG (grey, YCbCr, CMYK;
 * EXIF orientation is not applied, as Pillow's open().convert("RGB") does not), by its first bytes, not by its name.
 * JPEG pixels equal Pillow's (libjpeg-turbo's default islow transform and fancy upsampling).
 * Errors: NOT_FOUND, IO, FORMAT (names the file), UNSUPPORTED, OUT_OF_MEMORY (above max_bytes of pixels; 0: 1 GiB). */
lb_status lb_image_read(const char *path, size_t max_bytes, lb_image *image, lb_error *error);

/* Writes an 8-bit RGB PNG. Errors: IO. */
lb_status lb_image_write_png(const char *path, lb_image_view image, lb_error *error);

void lb_image_free(lb_image *image); /* zeroes it; a zeroed one is allowed */

#endif
