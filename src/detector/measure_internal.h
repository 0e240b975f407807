/* What the network takes on a device, without loading it. Private to src/detector. */
#ifndef LB_DETECTOR_MEASURE_INTERNAL_H
#define LB_DETECTOR_MEASURE_INTERNAL_H

#include "detector/find.h"

/* size: [2], width and height of the pictures; n of them at once; n_text: tokens of the labels. */
lb_status lb_gdino_measure(const char *path, const lb_device *device, int n_text, const int *size, int n,
                           lb_find_sizes *sizes, lb_error *error);

#endif
