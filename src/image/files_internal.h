/* PNG and JPEG behind lb_image_read. Private to src/image. */
#ifndef LB_IMAGE_FILES_INTERNAL_H
#define LB_IMAGE_FILES_INTERNAL_H

#include "image/files.h"

/* bytes: the whole file. The message's path is added by lb_image_read. */
lb_status lb_png_read(const uint8_t *bytes, size_t size, size_t max_bytes, lb_image *image, lb_error *error);
lb_status lb_jpeg_read(const uint8_t *bytes, size_t size, size_t max_bytes, lb_image *image, lb_error *error);

/* Memory for width x height pixels. Errors: FORMAT (a side of 0 or above 65,535), OUT_OF_MEMORY (above max_bytes). */
lb_status lb_image_new(uint32_t width, uint32_t height, size_t max_bytes, lb_image *image, lb_error *error);

#endif
