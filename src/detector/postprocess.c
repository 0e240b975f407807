#include "detector/postprocess.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

lb_postprocess_params lb_postprocess_default_params(void) {
    return (lb_postprocess_params){.box_threshold = 0.3f, .text_threshold = 0.25f, .max_text_len = 256};
}

/* Rounded once, so that it is the f32 nearest to the true value; PyTorch's is within one unit in the last place. */
static float sigmoid(float x) {
    return (float)(1.0 / (1.0 + exp(-(double)x)));
}

/* The highest of the caller's labels, by the best of its tokens. */
static void best_label(const lb_labels *labels, const float *probability, lb_detection *d) {
    d->label = 0;
    d->label_score = -1;
    for (int i = 0; i < labels->n; i++)
        for (int k = labels->first[i]; k < labels->end[i]; k++)
            if (probability[k] > d->label_score) {
                d->label = i;
                d->label_score = probability[k];
            }
}

/* The first token ([CLS]) and the last that the model could read are never in it (get_phrases_from_posmap). */
static lb_status raw_label(const lb_wordpiece *tokenizer, const lb_labels *labels, const lb_postprocess_params *params,
                           const float *probability, int32_t *id, char **text, lb_error *error) {
    size_t n = 0;
    for (int k = 1; k < labels->n_tokens && k < params->max_text_len - 1; k++)
        if (probability[k] > params->text_threshold)
            id[n++] = labels->token[k];
    return lb_wordpiece_decode(tokenizer, id, n, text, error);
}

lb_status lb_postprocess(const lb_wordpiece *tokenizer, const lb_labels *labels, const lb_postprocess_params *params,
                         const float *logits, const float *boxes, int n_queries, int width, int height,
                         lb_detections *detections, lb_error *error) {
    *detections = (lb_detections){0};
    lb_status status = LB_STATUS_OK;
    const int n = labels->n_tokens;
    const float scale[4] = {(float)width, (float)height, (float)width, (float)height};
    float *probability = malloc((size_t)n * sizeof *probability);
    int32_t *id = malloc((size_t)n * sizeof *id);
    detections->item = calloc((size_t)n_queries + 1, sizeof *detections->item);
    if (!probability || !id || !detections->item)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detections of %d queries", n_queries);
    for (int q = 0; q < n_queries && status == LB_STATUS_OK; q++) {
        lb_detection d = {.query = q};
        const float *box = boxes + (size_t)q * 4;
        const float *row = logits + (size_t)q * (size_t)n;
        float best = -INFINITY;
        bool finite = true;
        for (int k = 0; k < n; k++) {
            finite = finite && !isnan(row[k]); /* minus infinity marks tokens that are none */
            best = row[k] > best ? row[k] : best;
        }
        d.score = sigmoid(best); /* which grows with its argument: the highest probability */
        for (int i = 0; i < 4; i++)
            finite = finite && isfinite(box[i]);
        if (!finite) {
            status = lb_error_set(error, LB_STATUS_NOT_FINITE,
                                  "the detector gave no numbers for query %d: a damaged model?", q);
            break;
        }
        if (!(d.score > params->box_threshold))
            continue;
        for (int k = 0; k < n; k++)
            probability[k] = sigmoid(row[k]);
        for (int i = 0; i < 4; i++)
            d.box[i] = (i < 2 ? box[i] - 0.5f * box[i + 2] : box[i - 2] + 0.5f * box[i]) * scale[i];
        best_label(labels, probability, &d);
        status = raw_label(tokenizer, labels, params, probability, id, &d.raw_label, error);
        if (status == LB_STATUS_OK)
            detections->item[detections->n++] = d;
    }
    free(probability);
    free(id);
    if (status != LB_STATUS_OK)
        lb_detections_free(detections);
    return status;
}

bool lb_detection_pixels(const lb_detection *detection, int box[4]) {
    for (int i = 0; i < 4; i++) {
        const float most = 1e9f; /* far from where the conversion to int would be undefined */
        float v = detection->box[i];
        box[i] = (int)(v > most ? most : v < -most ? -most : v);
    }
    return box[2] > box[0] && box[3] > box[1];
}

void lb_detections_drop_empty(lb_detections *detections) {
    int kept = 0, box[4];
    for (int i = 0; i < detections->n; i++) {
        if (lb_detection_pixels(&detections->item[i], box))
            detections->item[kept++] = detections->item[i];
        else
            free(detections->item[i].raw_label);
    }
    detections->n_empty += detections->n - kept;
    detections->n = kept;
}

void lb_detections_free(lb_detections *detections) {
    for (int i = 0; i < detections->n; i++)
        free(detections->item[i].raw_label);
    free(detections->item);
    *detections = (lb_detections){0};
}
