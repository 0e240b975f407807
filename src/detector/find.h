/* Pictures in, detections out: the network with what stands before and after it.
 *
 *     lb_find_params params = lb_find_default_params();
 *     lb_find *find;
 *     if (lb_find_open("grounding-dino.gguf", &params, &find, &error) != LB_STATUS_OK) ...
 *     lb_detections detections[2];
 *     lb_find_run(find, views, 2, detections, &error);
 *     use(lb_find_labels(find)->label[detections[0].item[0].label]);
 *     lb_detections_free(&detections[0]); ...
 *     lb_find_free(find);
 */
#ifndef LB_DETECTOR_FIND_H
#define LB_DETECTOR_FIND_H

#include "detector/detector.h"
#include "detector/postprocess.h"
#include "detector/preprocess.h"
#include "image/image.h"

typedef struct lb_find lb_find;

typedef struct lb_find_params {
    lb_detector_params detector;         /* device and batch */
    const char *labels_path;             /* a file, one label a line; NULL: lb_labels_default */
    float box_threshold, text_threshold; /* 0.3 and 0.25 */
} lb_find_params;

lb_find_params lb_find_default_params(void); /* the device is still to be chosen (lb_device_find) */

/* Words of the labels that the vocabulary does not cover are named in a warning of the log.
 * Errors: those of lb_detector_open, lb_labels_read, lb_detector_set_labels. */
lb_status lb_find_open(const char *path, const lb_find_params *params, lb_find **find, lb_error *error);

/* Whether lb_find_open would take the file's settings and the labels, without reading weights. */
lb_status lb_find_check(const char *path, const lb_find_params *params, lb_error *error);

const lb_labels *lb_find_labels(const lb_find *find); /* good until lb_find_free */

/* detections: [n], each in the order of the reference, those without area dropped and counted.
 * Errors: those of lb_preprocess_size, lb_detector_run and lb_postprocess; nothing is to be freed then. */
lb_status lb_find_run(lb_find *find, const lb_image_view *views, int n, lb_detections *detections, lb_error *error);

/* The same for pictures that somebody else has resized to lb_find_preprocess's size, of frames that all have width x
 * height pixels. */
lb_status lb_find_run_resized(lb_find *find, const lb_detector_picture *pictures, int n, int width, int height,
                              lb_detections *detections, lb_error *error);
const lb_preprocess_params *lb_find_preprocess(const lb_find *find); /* good until lb_find_free */

/* Between the videos: gives back to the device what params.detector says may rest. */
void lb_find_rest(lb_find *find);

/* What lb_find_open and a run would take on the device, from the header and graphs that are built, not allocated. */
typedef struct lb_find_sizes {
    size_t weight_bytes;                                   /* without the text encoder's */
    size_t text_bytes;                                     /* text features */
    size_t text_encoder_bytes, text_encoder_compute_bytes; /* its weights and activations: while labels are set */
    size_t compute_bytes;              /* activations, constants and workspaces of n frames at once */
    size_t staging_bytes;              /* their pixels, on the host */
    int64_t n_rows, n_widest, n_width; /* of a frame: rows and widths of the largest product that the library makes */
} lb_find_sizes;

/* width, height: of the frame as decoded; 0: the one that makes the largest picture. n: frames at once. */
lb_status lb_find_measure(const char *path, const lb_find_params *params, int width, int height, int n,
                          lb_find_sizes *sizes, lb_error *error);

/* The longest raw label that a box can have: every token of all labels above the text threshold. text: from malloc. */
lb_status lb_find_longest_text(const char *path, const char *labels_path, char **text, lb_error *error);

void lb_find_free(lb_find *find);

#endif
