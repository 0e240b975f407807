/* What `lowbeam detect` makes of one frame's detections: JSON lines, a COCO file, pictures. */
#ifndef LB_CLI_DETECT_OUTPUT_H
#define LB_CLI_DETECT_OUTPUT_H

#include "detector/labels.h"
#include "detector/postprocess.h"
#include "image/image.h"

#include <jansson.h>
#include <stdint.h>

typedef struct lb_detect_frame {
    const char *file; /* as the user named it, or inside the folder that they named */
    bool is_video;    /* then index and time_s tell which frame */
    int64_t index;
    double time_s;
    lb_image_view view;
    const lb_detections *detections;
} lb_detect_frame;

/* One line: the frame object of design.md's detections.json, with "file"; or for people. Errors: IO, FORMAT (a name
 * that is no UTF-8). */
lb_status lb_detect_print(const lb_detect_frame *frame, const lb_labels *labels, bool json, lb_error *error);

/* The frame with its boxes as FOLDER/<name>.boxes.png. Errors: IO, OUT_OF_MEMORY. */
lb_status lb_detect_draw(const lb_detect_frame *frame, const lb_labels *labels, const char *folder, lb_error *error);

/* A COCO document; category i + 1 is label i, boxes are cut at the picture's sides. Errors: OUT_OF_MEMORY, FORMAT, IO.
 */
lb_status lb_coco_begin(const lb_labels *labels, json_t **coco, lb_error *error);
lb_status lb_coco_add(json_t *coco, const lb_detect_frame *frame, lb_error *error);
lb_status lb_coco_write(const json_t *coco, const char *path, lb_error *error);

#endif
