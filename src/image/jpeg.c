#include "image/files_internal.h"

#include "base/error.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <jpeglib.h>
#include <jerror.h>

enum { SCANS_MAX = 500 }; /* encoders write about ten */

typedef struct failure {
    struct jpeg_error_mgr manager; /* first, so that libjpeg's pointer is ours */
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
} failure;

static void leave(j_common_ptr jpeg) {
    failure *f = (failure *)jpeg->err;
    jpeg->err->format_message(jpeg, f->message);
    longjmp(f->jump, 1);
}

/* Damaged data gives odd pixels and a warning, as in Pillow; a file that ends too early is refused, as in Pillow. */
static void warn(j_common_ptr jpeg, int level) {
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF)
        leave(jpeg);
}

/* Each scan of a progressive file costs a pass over the whole picture and can be a few bytes long. */
static void count_scans(j_common_ptr jpeg) {
    if (jpeg->is_decompressor && ((j_decompress_ptr)jpeg)->input_scan_number > SCANS_MAX) {
        snprintf(((failure *)jpeg->err)->message, JMSG_LENGTH_MAX, "more than %d scans", SCANS_MAX);
        longjmp(((failure *)jpeg->err)->jump, 1);
    }
}

/* Pillow's cmyk2rgb: rounding division by 255 of (255 - ink) * (255 - black). Adobe's files hold inks inverted. */
static void cmyk_to_rgb(const uint8_t *in, uint8_t *out, int width, bool is_inverted) {
    for (int x = 0; x < width; x++, in += 4, out += 3) {
        const unsigned invert = is_inverted ? 255 : 0, paper = 255 - (in[3] ^ invert);
        for (int c = 0; c < 3; c++) {
            const unsigned ink = in[c] ^ invert, product = ink * paper + 128;
            const int value = (int)paper - (int)((product + (product >> 8)) >> 8);
            out[c] = value < 0 ? 0 : (uint8_t)value;
        }
    }
}

static void decode(struct jpeg_decompress_struct *jpeg, lb_image *image, JSAMPROW row) {
    const size_t stride = 3 * (size_t)image->width;
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *out = image->data + jpeg->output_scanline * stride;
        JSAMPROW target = row ? row : out;
        if (jpeg_read_scanlines(jpeg, &target, 1) != 1)
            break;
        if (jpeg->out_color_space == JCS_CMYK)
            cmyk_to_rgb(row, out, image->width, jpeg->saw_Adobe_marker);
        else if (jpeg->out_color_space == JCS_GRAYSCALE)
            for (int x = 0; x < image->width; x++)
                out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = row[x];
    }
}

lb_status lb_jpeg_read(const uint8_t *bytes, size_t size, size_t max_bytes, lb_image *image, lb_error *error) {
    struct jpeg_decompress_struct jpeg = {0};
    struct jpeg_progress_mgr progress = {.progress_monitor = count_scans};
    failure f = {0};
    JSAMPROW volatile row = NULL; /* volatile: set after setjmp, used after longjmp */
    volatile lb_status status = LB_STATUS_OK;
    jpeg.err = jpeg_std_error(&f.manager);
    f.manager.error_exit = leave;
    f.manager.emit_message = warn;
    if (setjmp(f.jump)) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "broken JPEG: %s", f.message);
        goto cleanup;
    }
    jpeg_create_decompress(&jpeg);
    jpeg.progress = &progress;
    jpeg_mem_src(&jpeg, bytes, size);
    jpeg_read_header(&jpeg, TRUE);
    status = lb_image_new(jpeg.image_width, jpeg.image_height, max_bytes, image, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    if (jpeg.num_components == 4) {
        jpeg.out_color_space = JCS_CMYK;
    } else if (jpeg.num_components == 1) {
        jpeg.out_color_space = JCS_GRAYSCALE;
    } else if (jpeg.num_components == 3) {
        jpeg.out_color_space = JCS_RGB;
    } else {
        status = lb_error_set(error, LB_STATUS_UNSUPPORTED, "a JPEG of %d components", jpeg.num_components);
        goto cleanup;
    }
    if (jpeg.out_color_space != JCS_RGB && !(row = malloc(4 * (size_t)image->width))) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a picture's row");
        goto cleanup;
    }
    jpeg_start_decompress(&jpeg);
    decode(&jpeg, image, row);
    jpeg_finish_decompress(&jpeg);

cleanup:
    free(row);
    jpeg_destroy_decompress(&jpeg);
    return status;
}
