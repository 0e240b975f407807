#include "image/files_internal.h"

#include "base/error.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    const uint8_t *bytes;
    size_t left;
    char message[160];
} source;

static void read_bytes(png_structp png, png_bytep out, size_t n) {
    source *s = png_get_io_ptr(png);
    if (n > s->left)
        png_error(png, "the file is cut off");
    memcpy(out, s->bytes, n);
    s->bytes += n;
    s->left -= n;
}

static void keep_message(png_structp png, png_const_charp message) {
    source *s = png_get_error_ptr(png);
    snprintf(s->message, sizeof s->message, "%s", message);
    png_longjmp(png, 1);
}

static void ignore_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message;
}

static bool is_grey16(png_structp png, png_infop info) {
    return png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) == 16;
}

/* Pillow's I;16 to RGB: values are not scaled, but cut at 255. In place, from the end, since rows grow. */
static void expand_grey16(const lb_image *image) {
    for (int y = 0; y < image->height; y++) {
        uint8_t *row = image->data + (size_t)y * 3 * (size_t)image->width;
        for (int x = image->width - 1; x >= 0; x--) {
            const uint8_t value = row[2 * x] ? 255 : row[2 * x + 1];
            memset(row + 3 * x, value, 3);
        }
    }
}

/* The steps from any PNG to what Pillow's convert("RGB") gives: colours as stored (no gamma, no profile), 16 bits cut
 * to the upper 8, alpha and transparency dropped. */
static void ask_for_rgb(png_structp png, png_infop info) {
    const int type = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
    png_set_interlace_handling(png);
    if (is_grey16(png, info)) {
        png_read_update_info(png, info);
        return;
    }
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(png);
    if (type == PNG_COLOR_TYPE_GRAY && depth < 8)
        png_set_expand_gray_1_2_4_to_8(png);
    if (depth == 16)
        png_set_strip_16(png);
    if (type & PNG_COLOR_MASK_ALPHA || png_get_valid(png, info, PNG_INFO_tRNS))
        png_set_strip_alpha(png);
    if (!(type & PNG_COLOR_MASK_COLOR))
        png_set_gray_to_rgb(png);
    png_read_update_info(png, info);
}

lb_status lb_png_read(const uint8_t *bytes, size_t size, size_t max_bytes, lb_image *image, lb_error *error) {
    source s = {.bytes = bytes, .left = size};
    png_bytep *volatile rows = NULL; /* volatile: set after setjmp, used after longjmp */
    volatile lb_status status = LB_STATUS_OK;
    png_infop info = NULL;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, keep_message, ignore_warning);
    if (png)
        info = png_create_info_struct(png);
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory to read a PNG");
    }
    if (setjmp(png_jmpbuf(png))) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "broken PNG: %s", s.message);
        goto cleanup;
    }
    png_set_read_fn(png, &s, read_bytes);
    png_set_user_limits(png, 65535, 65535);
    png_read_info(png, info);
    ask_for_rgb(png, info);
    status = lb_image_new(png_get_image_width(png, info), png_get_image_height(png, info), max_bytes, image, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    const bool grey16 = is_grey16(png, info);
    if (png_get_rowbytes(png, info) != (grey16 ? 2 : 3) * (size_t)image->width)
        png_error(png, "its rows are not RGB");
    rows = calloc((size_t)image->height, sizeof *rows);
    if (!rows) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a picture's rows");
        goto cleanup;
    }
    for (int y = 0; y < image->height; y++)
        rows[y] = image->data + (size_t)y * 3 * (size_t)image->width;
    png_read_image(png, rows);
    if (grey16)
        expand_grey16(image);

cleanup:
    free(rows);
    png_destroy_read_struct(&png, &info, NULL);
    return status;
}

lb_status lb_image_write_png(const char *path, lb_image_view image, lb_error *error) {
    source s = {0};
    volatile lb_status status = LB_STATUS_OK;
    FILE *file = fopen(path, "wbe");
    if (!file)
        return lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", path, strerror(errno));
    png_infop info = NULL;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, keep_message, ignore_warning);
    if (png)
        info = png_create_info_struct(png);
    if (!info) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory to write a PNG", path);
        goto cleanup;
    }
    if (setjmp(png_jmpbuf(png))) {
        status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", path, s.message);
        goto cleanup;
    }
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)image.width, (png_uint_32)image.height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, 3); /* these are for looking at: 3 is three times as fast as 6, and 5 % larger */
    png_write_info(png, info);
    for (int y = 0; y < image.height; y++)
        png_write_row(png, image.data + (size_t)y * image.stride);
    png_write_end(png, NULL);

cleanup:
    png_destroy_write_struct(&png, &info);
    if (fclose(file) && status == LB_STATUS_OK)
        status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", path, strerror(errno));
    return status;
}
