#include "run/findings.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "3 (car, car, truck)": the label's text as the reference gives it ("car truck" where a box belongs to both). That is
 * empty when no word passed the text threshold; then the label that the box belongs to. */
static char *describe(const lb_detections *d, const lb_labels *labels) {
    char *text = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&text, &n);
    if (!file)
        return NULL;
    fprintf(file, "%d (", d->n);
    for (int i = 0; i < d->n; i++) {
        const lb_detection *one = &d->item[i];
        fprintf(file, "%s%s", i ? ", " : "", one->raw_label[0] ? one->raw_label : labels->label[one->label]);
    }
    fputs(")", file);
    if (fclose(file) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static void keep_first(lb_detections *d, int n_max) {
    for (int i = n_max; i < d->n; i++)
        free(d->item[i].raw_label);
    if (d->n > n_max)
        d->n = n_max;
}

static bool copy(const lb_detections *from, lb_detections *to) {
    *to = (lb_detections){.item = calloc((size_t)from->n + 1, sizeof *to->item)};
    if (!to->item)
        return false;
    for (; to->n < from->n; to->n++) {
        to->item[to->n] = from->item[to->n];
        if (!(to->item[to->n].raw_label = strdup(from->item[to->n].raw_label)))
            return false;
    }
    return true;
}

/* found: [resized->n], what the network gave, already cut to what is kept. */
static lb_status spread(const lb_detections *found, const lb_resized *resized, const lb_labels *labels,
                        lb_findings *findings, lb_error *error) {
    for (int i = 0; i < resized->n; i++)
        findings->n_empty += found[i].n_empty;
    for (int i = 0; i < findings->n_frames; i++) {
        lb_detections *d = &findings->frame[i];
        const bool good = copy(&found[resized->of_frame[i]], d);
        if (good && d->n > 0)
            findings->text[i] = describe(d, labels);
        if (!good || (d->n > 0 && !findings->text[i]))
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detections");
        findings->n_boxes += d->n;
    }
    return LB_STATUS_OK;
}

lb_status lb_findings_make(lb_find *find, const lb_resized *resized, int n_frames, int width, int height,
                           int max_detections, lb_findings *findings, lb_error *error) {
    *findings = (lb_findings){.n_frames = n_frames};
    const size_t bytes = (size_t)resized->width * (size_t)resized->height * 3;
    lb_detector_picture *pictures = calloc((size_t)resized->n, sizeof *pictures);
    lb_detections *found = calloc((size_t)resized->n, sizeof *found);
    findings->frame = calloc((size_t)n_frames, sizeof *findings->frame);
    findings->text = calloc((size_t)n_frames, sizeof *findings->text);
    lb_status status = LB_STATUS_OK;
    if (!pictures || !found || !findings->frame || !findings->text)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detections of %d frames", n_frames);
    for (int i = 0; i < resized->n && status == LB_STATUS_OK; i++)
        pictures[i] = (lb_detector_picture){resized->data + (size_t)i * bytes, resized->width, resized->height};
    if (status == LB_STATUS_OK)
        status = lb_find_run_resized(find, pictures, resized->n, width, height, found, error);
    if (status == LB_STATUS_OK) {
        for (int i = 0; i < resized->n; i++)
            keep_first(&found[i], max_detections);
        status = spread(found, resized, lb_find_labels(find), findings, error);
        for (int i = 0; i < resized->n; i++)
            lb_detections_free(&found[i]);
    }
    free(pictures);
    free(found);
    if (status != LB_STATUS_OK) {
        lb_findings_free(findings);
        if (error && !strstr(error->message, "detector"))
            lb_error_context(error, "detector");
    }
    return status;
}

lb_status lb_findings_cut(lb_findings *findings, const lb_labels *labels, int n_max, lb_error *error) {
    findings->n_boxes = 0;
    for (int i = 0; i < findings->n_frames; i++) {
        lb_detections *d = &findings->frame[i];
        if (d->n > n_max) {
            keep_first(d, n_max);
            free(findings->text[i]);
            findings->text[i] = d->n > 0 ? describe(d, labels) : NULL;
            if (d->n > 0 && !findings->text[i])
                return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detections");
        }
        findings->n_boxes += d->n;
    }
    return LB_STATUS_OK;
}

void lb_findings_free(lb_findings *findings) {
    for (int i = 0; i < findings->n_frames; i++) {
        if (findings->frame)
            lb_detections_free(&findings->frame[i]);
        if (findings->text)
            free(findings->text[i]);
    }
    free(findings->frame);
    free(findings->text);
    *findings = (lb_findings){0};
}

json_t *lb_findings_json(const lb_detections *detections, const lb_labels *labels, int64_t index, double time_s,
                         int width, int height) {
    json_t *list = json_array();
    for (int i = 0; i < detections->n; i++) {
        const lb_detection *d = &detections->item[i];
        json_t *one = json_pack("{s:[f,f,f,f], s:f, s:s, s:s}", "box", (double)d->box[0], (double)d->box[1],
                                (double)d->box[2], (double)d->box[3], "score", (double)d->score, "label",
                                labels->label[d->label], "raw_label", d->raw_label);
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return json_pack("{s:I, s:f, s:i, s:i, s:o}", "index", (json_int_t)index, "time_s", time_s, "width", width,
                     "height", height, "detections", list);
}
