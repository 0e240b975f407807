/* Boxes drawn onto pictures: ink where it belongs, none elsewhere, nothing past the picture's memory. */
#include "image/draw.h"
#include "image/font_internal.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const uint8_t red[3] = {255, 0, 0};

static lb_image black(int width, int height) {
    lb_image image = {calloc((size_t)width * (size_t)height, 3), width, height};
    assert_non_null(image.data);
    return image;
}

static bool is(const lb_image *image, int x, int y, const uint8_t rgb[3]) {
    return memcmp(image->data + ((size_t)y * (size_t)image->width + (size_t)x) * 3, rgb, 3) == 0;
}

static void test_box(void **state) {
    (void)state;
    lb_image image = black(100, 80);
    lb_draw_box(&image, (int[4]){20, 30, 60, 70}, red, "");
    int n = 0;
    for (int y = 0; y < 80; y++)
        for (int x = 0; x < 100; x++)
            n += is(&image, x, y, red);
    assert_int_equal(n, 2 * 40 + 2 * 38); /* one pixel wide on a picture this small */
    assert_true(is(&image, 20, 30, red) && is(&image, 59, 69, red));
    lb_draw_box(&image, (int[4]){20, 30, 60, 70}, red, "car");
    assert_true(is(&image, 20, 29, red));  /* the text's field stands on the box */
    assert_false(is(&image, 20, 15, red)); /* 10 pixels high */
    lb_image_free(&image);
}

/* AddressSanitizer sees what would go past the memory. */
static void test_outside(void **state) {
    (void)state;
    static const int boxes[][4] = {{-50, -50, 500, 500},
                                   {INT_MIN, INT_MIN, INT_MAX, INT_MAX},
                                   {INT_MAX, INT_MAX, INT_MIN, INT_MIN},
                                   {99, 79, 101, 81},
                                   {0, 0, 0, 0},
                                   {-10, 40, -5, 50}};
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++)
        for (int side = 1; side <= 100; side += 33) {
            lb_image image = black(side, 101 - side);
            lb_draw_box(&image, boxes[i], red, "a label longer than the picture is wide \xC4\x91\xE1\xBB\x8F \xFF");
            lb_image_free(&image);
        }
}

static void test_font_and_colours(void **state) {
    (void)state;
    uint8_t a[3], b[3];
    for (int32_t c = 'a'; c <= 'z'; c++) { /* each letter has ink, and other ink than the frame of unknown ones */
        int ink = 0, other = 0;
        for (int y = 0; y < LB_GLYPH_HEIGHT; y++)
            for (int x = 0; x < LB_GLYPH_WIDTH; x++) {
                ink += lb_glyph_ink(c, x, y);
                other += lb_glyph_ink(c, x, y) != lb_glyph_ink(0x4E00, x, y);
            }
        assert_true(ink > 4 && other > 4);
    }
    assert_false(lb_glyph_ink('a', -1, 0) || lb_glyph_ink('a', 0, LB_GLYPH_HEIGHT));
    for (int i = 0; i < 14; i++) /* the default labels are told apart */
        for (int k = 0; k < i; k++) {
            lb_draw_colour(i, a);
            lb_draw_colour(k, b);
            assert_true(abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2]) > 30);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_box),
        cmocka_unit_test(test_outside),
        cmocka_unit_test(test_font_and_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
