/* From a picture to what the detector sees, byte for byte as transformers 5.23's GroundingDinoImageProcessorPil.
 *
 *     int width, height;
 *     lb_preprocess_size(&params, view.width, view.height, &width, &height, &error);
 *     uint8_t *rgb = malloc((size_t)width * height * 3);
 *     lb_preprocess_resize(view, width, height, rgb, &error);             // Pillow's 8-bit bilinear
 *     float table[3][256];
 *     lb_preprocess_table(&params, table);                                // pixel value -> normalised value
 *
 * A batch: lb_preprocess_make pads to the largest sides with zeros after normalisation, right and bottom.
 */
#ifndef LB_DETECTOR_PREPROCESS_H
#define LB_DETECTOR_PREPROCESS_H

#include "image/image.h"
#include "lowbeam/status.h"
#include "nn/gguf_file.h"

#include <stdint.h>

typedef struct lb_preprocess_params {
    int shortest_edge, longest_edge; /* pixels; 800 and 1333 */
    float mean[3], std[3];           /* of pixel values / 255, RGB; ImageNet's */
} lb_preprocess_params;

lb_preprocess_params lb_preprocess_default_params(void);

/* From gdino.preprocess.* of a converted model. Errors: FORMAT, naming file and key. */
lb_status lb_preprocess_read(const lb_gguf *file, lb_preprocess_params *params, lb_error *error);

/* The size after resizing: shortest_edge for the shorter side unless the longer one would pass longest_edge
 * (image_transforms.get_size_with_aspect_ratio, with its roundings: half to even for the short side, toward zero for
 * the long one). Errors: INVALID_ARGUMENT, REFUSED (a picture so thin that a side would vanish). */
lb_status lb_preprocess_size(const lb_preprocess_params *params, int width, int height, int *out_width, int *out_height,
                             lb_error *error);

/* out: [height][width][3], 8 bit. Errors: OUT_OF_MEMORY, INVALID_ARGUMENT. */
lb_status lb_preprocess_resize(lb_image_view source, int width, int height, uint8_t *out, lb_error *error);

/* table[c][v]: ((f32)(v * (1/255)) - mean[c]) / std[c], the multiplication in f64, the rest in f32. */
void lb_preprocess_table(const lb_preprocess_params *params, float table[3][256]);

typedef struct lb_preprocess_batch {
    int n, width, height;  /* of the whole batch: the largest sides */
    float *pixels;         /* [n][3][height][width], planes of red, green, blue; 0 where padded */
    int *widths, *heights; /* [n] the part that is picture, from the upper left; the mask is 1 there */
} lb_preprocess_batch;

/* Errors: as above, OUT_OF_MEMORY. Memory: 12 bytes a padded pixel and the 8-bit pictures. */
lb_status lb_preprocess_make(const lb_preprocess_params *params, const lb_image_view *views, int n,
                             lb_preprocess_batch *batch, lb_error *error);
void lb_preprocess_batch_free(lb_preprocess_batch *batch); /* zeroes it */

#endif
