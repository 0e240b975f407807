/* From the detector's logits and boxes to detections, as transformers 5.23's post_process_grounded_object_detection.
 *
 *     lb_detections detections;
 *     lb_postprocess_params params = lb_postprocess_default_params();
 *     lb_postprocess(tokenizer, labels, &params, logits, boxes, n_queries, frame.width, frame.height, &detections,
 *                    &error);
 *     lb_detections_drop_empty(&detections);
 *     for (int i = 0; i < detections.n; i++) use(detections.item[i].box, labels->label[detections.item[i].label]);
 *     lb_detections_free(&detections);
 */
#ifndef LB_DETECTOR_POSTPROCESS_H
#define LB_DETECTOR_POSTPROCESS_H

#include "detector/labels.h"
#include "detector/wordpiece.h"
#include "lowbeam/status.h"

#include <stdbool.h>

typedef struct lb_postprocess_params {
    float box_threshold;  /* a query counts when its best token's probability is above it; default 0.3 */
    float text_threshold; /* a token is in the raw label when its probability is above it; default 0.25 */
    int max_text_len;     /* of the model; its last token never is in a label, as in the reference; default 256 */
} lb_postprocess_params;

lb_postprocess_params lb_postprocess_default_params(void);

typedef struct lb_detection {
    int query;         /* which of the model's queries it was */
    float box[4];      /* x0, y0, x1, y1 in pixels of the frame; may reach outside it */
    float score;       /* the highest probability of all tokens, from 0 to 1 */
    int label;         /* the caller's label whose tokens have the highest probability; of equal ones the first */
    float label_score; /* that probability */
    char *raw_label;   /* the tokens above text_threshold as text ("car taxi"), as the reference gives it; may be "" */
} lb_detection;

typedef struct lb_detections {
    int n;
    lb_detection *item; /* in the order of the queries */
    int n_empty;        /* left out by lb_detections_drop_empty */
} lb_detections;

/* logits: [n_queries][labels->n_tokens], boxes: [n_queries][4] cxcywh as parts of the frame; width, height: the frame's
 * own, in pixels. Errors: NOT_FINITE (which query), OUT_OF_MEMORY. */
lb_status lb_postprocess(const lb_wordpiece *tokenizer, const lb_labels *labels, const lb_postprocess_params *params,
                         const float *logits, const float *boxes, int n_queries, int width, int height,
                         lb_detections *detections, lb_error *error);

/* Takes away those whose box, its sides cut to whole pixels toward zero, has no area, and counts them. */
void lb_detections_drop_empty(lb_detections *detections);

/* box: [4] as whole pixels, toward zero. False: without area. */
bool lb_detection_pixels(const lb_detection *detection, int box[4]);

void lb_detections_free(lb_detections *detections); /* zeroes it */

#endif
