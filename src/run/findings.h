/* What the detector found in a video's frames, cut to what enters the prompt and the crops.
 *
 *     lb_findings findings;
 *     if (lb_findings_make(find, &pictures, max_detections, &findings, &error) != LB_STATUS_OK) ...
 *     values.detections = (const char *const *)findings.text;
 *     lb_findings_free(&findings);
 */
#ifndef LB_RUN_FINDINGS_H
#define LB_RUN_FINDINGS_H

#include "detector/find.h"
#include "lowbeam/status.h"

#include <jansson.h>
#include <stdint.h>

/* The frames of a video as the detector takes them, resized. */
typedef struct lb_resized {
    const uint8_t *data; /* [n][height][width][3]; NULL: no detector */
    int n, width, height;
    const int
        *of_frame; /* [n_frames] which of them is frame i's: one that repeats the frame before shares its picture */
} lb_resized;

typedef struct lb_findings {
    int n_frames;
    lb_detections *frame; /* [n_frames] in the model's order, at most max_detections each, none without area */
    char **text;          /* [n_frames] for the prompt, "3 (car, car, truck)"; NULL where nothing was found */
    int n_boxes, n_empty; /* kept in all frames; left out because they had no area */
} lb_findings;

/* n_frames, width and height: of the frames as decoded. Errors: those of lb_find_run; findings is zero then. */
lb_status lb_findings_make(lb_find *find, const lb_resized *resized, int n_frames, int width, int height,
                           int max_detections, lb_findings *findings, lb_error *error);
/* Keeps the first n_max of each frame, and says so in its text. Errors: OUT_OF_MEMORY. */
lb_status lb_findings_cut(lb_findings *findings, const lb_labels *labels, int n_max, lb_error *error);
void lb_findings_free(lb_findings *findings); /* zeroes it; a zeroed one is allowed */

/* One frame as an object of design.md's detections.json; NULL: no memory. */
json_t *lb_findings_json(const lb_detections *detections, const lb_labels *labels, int64_t index, double time_s,
                         int width, int height);

#endif
