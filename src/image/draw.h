/* Boxes with labels drawn onto a picture, for people to look at.
 *
 *     uint8_t rgb[3];
 *     lb_draw_colour(label, rgb);                                   // one colour a label
 *     lb_draw_box(&image, (int[4]){10, 20, 110, 220}, rgb, "car 0.87");
 */
#ifndef LB_IMAGE_DRAW_H
#define LB_IMAGE_DRAW_H

#include "image/files.h"

/* Colours far apart for numbers near each other: hues by the golden ratio, full and bright. */
void lb_draw_colour(int number, uint8_t rgb[3]);

/* box: x0, y0, x1, y1 in pixels, x1 and y1 not inside; what lies outside the picture is cut off. text (UTF-8): on a
 * field of the colour above the box, or inside it where there is no room; accents are left out (the font is ASCII).
 * Line and text grow with the picture. */
void lb_draw_box(lb_image *image, const int box[4], const uint8_t rgb[3], const char *text);

#endif
