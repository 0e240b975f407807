/* What the network takes on a device, without loading it. Private to src/detector. */
#ifndef LB_DETECTOR_MEASURE_INTERNAL_H
#define LB_DETECTOR_MEASURE_INTERNAL_H

#include "detector/find.h"

/* size: [n_sizes] width and height of the pictures: the one that takes most counts. n: pictures of that size at once;
 * n_text: tokens of the labels. sizes: zero before. */
lb_status lb_gdino_measure(const char *path, const lb_detector_params *params, int n_text, const int (*size)[2],
                           int n_sizes, int n, lb_find_sizes *sizes, lb_error *error);

#endif
