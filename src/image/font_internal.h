/* A small bitmap font for what is drawn onto pictures: 5 pixels wide, 8 high, the last row below the line. */
#ifndef LB_IMAGE_FONT_INTERNAL_H
#define LB_IMAGE_FONT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

enum { LB_GLYPH_WIDTH = 5, LB_GLYPH_HEIGHT = 8 };

/* Whether the glyph of c (ASCII; anything else is an empty frame) has ink at (x, y). */
bool lb_glyph_ink(int32_t c, int x, int y);

#endif
