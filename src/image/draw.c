#include "image/draw.h"

#include "image/font_internal.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_CHARACTERS = 128 };

void lb_draw_colour(int number, uint8_t rgb[3]) {
    const double hue = 6 * fmod(0.61803398875 * number, 1.0);
    for (int c = 0; c < 3; c++) {
        /* Each channel is a plateau of width 2 with slopes of 1 on the circle of hues. */
        double distance = fabs(fmod(hue - 2 * c + 9, 6) - 3);
        double value = 2 - distance;
        value = value < 0 ? 0 : value > 1 ? 1 : value;
        rgb[c] = (uint8_t)(40 + 215 * value);
    }
}

static int clamp(int v, int most) {
    return v < 0 ? 0 : v > most ? most : v;
}

static void fill(lb_image *image, int x0, int y0, int x1, int y1, const uint8_t rgb[3]) {
    x0 = clamp(x0, image->width);
    x1 = clamp(x1, image->width);
    y0 = clamp(y0, image->height);
    y1 = clamp(y1, image->height);
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++)
            memcpy(image->data + ((size_t)y * (size_t)image->width + (size_t)x) * 3, rgb, 3);
}

/* Letters without their accents; a letter that has no plain one (the Vietnamese d with a stroke) by hand. */
static int characters(const char *text, int32_t *out) {
    int n = 0;
    size_t length = strlen(text);
    for (size_t at = 0; at < length && n < MAX_CHARACTERS;) {
        utf8proc_int32_t c, parts[16];
        utf8proc_ssize_t used = utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &c);
        if (used <= 0)
            break;
        at += (size_t)used;
        int last_class = 0;
        if (utf8proc_decompose_char(c, parts, 16, UTF8PROC_DECOMPOSE, &last_class) > 0)
            c = parts[0];
        if (utf8proc_category(c) == UTF8PROC_CATEGORY_MN)
            continue;
        out[n++] = c == 0x111 ? 'd' : c == 0x110 ? 'D' : c;
    }
    return n;
}

void lb_draw_box(lb_image *image, const int box[4], const uint8_t rgb[3], const char *text) {
    const int least = image->width < image->height ? image->width : image->height;
    const int scale = least < 400 ? 1 : least / 400 + 1, line = least < 300 ? 1 : least / 300 + 1;
    int b[4];
    for (int i = 0; i < 4; i++) { /* far enough outside not to be seen, near enough not to overflow */
        int side = i % 2 ? image->height : image->width;
        b[i] = box[i] < -side ? -side : box[i] > 2 * side ? 2 * side : box[i];
    }
    fill(image, b[0], b[1], b[2], b[1] + line, rgb);
    fill(image, b[0], b[3] - line, b[2], b[3], rgb);
    fill(image, b[0], b[1], b[0] + line, b[3], rgb);
    fill(image, b[2] - line, b[1], b[2], b[3], rgb);

    int32_t c[MAX_CHARACTERS];
    const int n = characters(text, c);
    const int height = (LB_GLYPH_HEIGHT + 2) * scale, width = (n * (LB_GLYPH_WIDTH + 1) + 1) * scale;
    int x0 = b[0] + width > image->width ? image->width - width : b[0], y0 = b[1] - height;
    if (y0 < 0)
        y0 = b[1] < 0 ? 0 : b[1];
    if (x0 < 0)
        x0 = 0;
    if (n == 0)
        return;
    fill(image, x0, y0, x0 + width, y0 + height, rgb);
    const bool bright = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] > 128000;
    const uint8_t ink[3] = {bright ? 0 : 255, bright ? 0 : 255, bright ? 0 : 255};
    for (int i = 0; i < n; i++)
        for (int y = 0; y < LB_GLYPH_HEIGHT; y++)
            for (int x = 0; x < LB_GLYPH_WIDTH; x++)
                if (lb_glyph_ink(c[i], x, y)) {
                    int px = x0 + (i * (LB_GLYPH_WIDTH + 1) + x + 1) * scale, py = y0 + (y + 1) * scale;
                    fill(image, px, py, px + scale, py + scale, ink);
                }
}
