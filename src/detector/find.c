#include "detector/find.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "detector/measure_internal.h"
#include "detector/model_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lb_find {
    lb_detector *detector;
    lb_wordpiece *tokenizer;
    lb_labels *labels;
    lb_preprocess_params preprocess;
    lb_postprocess_params postprocess;
};

lb_find_params lb_find_default_params(void) {
    lb_postprocess_params p = lb_postprocess_default_params();
    return (lb_find_params){.box_threshold = p.box_threshold, .text_threshold = p.text_threshold};
}

/* What needs no device: settings, vocabulary, labels. */
static lb_status read_file(const char *path, const lb_find_params *params, lb_find **out, lb_error *error) {
    *out = NULL;
    lb_status status;
    lb_gguf *file = NULL;
    lb_gdino_hparams hp;
    lb_find *f = calloc(1, sizeof *f);
    if (!f)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the detector", path);
    f->postprocess = lb_postprocess_default_params();
    f->postprocess.box_threshold = params->box_threshold;
    f->postprocess.text_threshold = params->text_threshold;
    if ((status = lb_gguf_open(path, &file, error)) != LB_STATUS_OK ||
        (status = lb_gdino_read_hparams(file, &hp, error)) != LB_STATUS_OK ||
        (status = lb_preprocess_read(file, &f->preprocess, error)) != LB_STATUS_OK ||
        (status = lb_wordpiece_from_gguf(file, &f->tokenizer, error)) != LB_STATUS_OK)
        goto cleanup;
    const int most = f->postprocess.max_text_len = hp.max_text_len;
    if (params->labels_path)
        status = lb_labels_read(f->tokenizer, params->labels_path, most, &f->labels, error);
    else
        status = lb_labels_create(f->tokenizer, lb_labels_default, LB_LABELS_DEFAULT_N, most, &f->labels, error);
cleanup:
    lb_gguf_close(file);
    if (status != LB_STATUS_OK)
        lb_find_free(f);
    else
        *out = f;
    return status;
}

lb_status lb_find_check(const char *path, const lb_find_params *params, lb_error *error) {
    lb_find *f = NULL;
    lb_status status = read_file(path, params, &f, error);
    lb_find_free(f);
    return status;
}

lb_status lb_find_open(const char *path, const lb_find_params *params, lb_find **out, lb_error *error) {
    *out = NULL;
    lb_find *f = NULL;
    lb_status status = read_file(path, params, &f, error);
    if (status == LB_STATUS_OK)
        status = lb_detector_open(path, &params->detector, &f->detector, error);
    if (status == LB_STATUS_OK && f->labels->unknown)
        lb_log(LB_LOG_WARN, "detector", "%s: the detector's vocabulary does not cover: %s",
               params->labels_path ? params->labels_path : "labels", f->labels->unknown);
    if (status == LB_STATUS_OK)
        status = lb_detector_set_labels(f->detector, f->labels->token, f->labels->n_tokens, error);
    if (status == LB_STATUS_OK)
        lb_detector_rest(f->detector); /* nothing but the weights, if they are to stay, until the first run */
    if (status != LB_STATUS_OK)
        lb_find_free(f);
    else
        *out = f;
    return status;
}

const lb_labels *lb_find_labels(const lb_find *find) {
    return find->labels;
}

static lb_status resize_all(const lb_find *f, const lb_image_view *views, int n, lb_detector_picture *pictures,
                            lb_error *error) {
    for (int i = 0; i < n; i++) {
        lb_detector_picture *p = &pictures[i];
        lb_status status =
            lb_preprocess_size(&f->preprocess, views[i].width, views[i].height, &p->width, &p->height, error);
        if (status != LB_STATUS_OK)
            return status;
        uint8_t *rgb = malloc((size_t)p->width * (size_t)p->height * 3);
        p->rgb = rgb;
        if (!rgb)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a picture of %dx%d", p->width,
                                p->height);
        status = lb_preprocess_resize(views[i], p->width, p->height, rgb, error);
        if (status != LB_STATUS_OK)
            return status;
    }
    return LB_STATUS_OK;
}

/* size: [n][2] width and height of the frames, which the boxes are scaled to. */
static lb_status run(lb_find *f, const lb_detector_picture *pictures, int n, const int (*size)[2],
                     lb_detections *detections, lb_error *error) {
    const size_t n_queries = (size_t)lb_detector_n_queries(f->detector), n_tokens = (size_t)f->labels->n_tokens;
    lb_status status = LB_STATUS_OK;
    double start = lb_now_s();
    int done = 0, found = 0;
    float *logits = calloc((size_t)n * n_queries, n_tokens * sizeof *logits);
    float *boxes = calloc((size_t)n * n_queries, 4 * sizeof *boxes);
    if (!logits || !boxes)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detections of %d pictures", n);
    if (status == LB_STATUS_OK)
        status = lb_detector_run(f->detector, pictures, n, logits, boxes, error);
    double ran = lb_now_s();
    for (; done < n && status == LB_STATUS_OK; done++) {
        status = lb_postprocess(f->tokenizer, f->labels, &f->postprocess, logits + (size_t)done * n_queries * n_tokens,
                                boxes + (size_t)done * n_queries * 4, (int)n_queries, size[done][0], size[done][1],
                                &detections[done], error);
        if (status != LB_STATUS_OK)
            break;
        lb_detections_drop_empty(&detections[done]);
        found += detections[done].n;
    }
    for (int i = 0; i < done && status != LB_STATUS_OK; i++)
        lb_detections_free(&detections[i]);
    free(logits);
    free(boxes);
    if (status == LB_STATUS_OK)
        lb_log(LB_LOG_INFO, "detector", "frames=%d boxes=%d network_s=%.3f rest_s=%.3f", n, found, ran - start,
               lb_now_s() - ran);
    return status;
}

lb_status lb_find_run(lb_find *f, const lb_image_view *views, int n, lb_detections *detections, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    lb_detector_picture *pictures = calloc((size_t)n, sizeof *pictures);
    int(*size)[2] = malloc((size_t)n * sizeof *size);
    if (!pictures || !size)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d pictures", n);
    for (int i = 0; i < n && status == LB_STATUS_OK; i++)
        size[i][0] = views[i].width, size[i][1] = views[i].height;
    if (status == LB_STATUS_OK)
        status = resize_all(f, views, n, pictures, error);
    if (status == LB_STATUS_OK)
        status = run(f, pictures, n, (const int(*)[2])size, detections, error);
    for (int i = 0; i < n && pictures; i++)
        free((void *)pictures[i].rgb);
    free(pictures);
    free(size);
    return status;
}

lb_status lb_find_run_resized(lb_find *f, const lb_detector_picture *pictures, int n, int width, int height,
                              lb_detections *detections, lb_error *error) {
    int(*size)[2] = malloc((size_t)n * sizeof *size);
    if (!size)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d pictures", n);
    for (int i = 0; i < n; i++)
        size[i][0] = width, size[i][1] = height;
    lb_status status = run(f, pictures, n, (const int(*)[2])size, detections, error);
    free(size);
    return status;
}

const lb_preprocess_params *lb_find_preprocess(const lb_find *find) {
    return &find->preprocess;
}

void lb_find_free(lb_find *f) {
    if (!f)
        return;
    lb_detector_free(f->detector);
    lb_wordpiece_free(f->tokenizer);
    lb_labels_free(f->labels);
    free(f);
}

void lb_find_rest(lb_find *f) {
    lb_detector_rest(f->detector);
}

lb_status lb_find_measure(const char *path, const lb_find_params *params, int width, int height, int n,
                          lb_find_sizes *sizes, lb_error *error) {
    *sizes = (lb_find_sizes){0};
    lb_find *f = NULL;
    lb_status status = read_file(path, params, &f, error);
    if (status != LB_STATUS_OK)
        return status;
    const lb_preprocess_params *p = &f->preprocess;
    const int most = p->longest_edge > p->shortest_edge ? p->longest_edge : p->shortest_edge;
    int size[2][2] = {{most, p->shortest_edge}, {p->shortest_edge, most}};
    const bool known = width > 0 && height > 0;
    if (known)
        status = lb_preprocess_size(p, width, height, &size[0][0], &size[0][1], error);
    if (status == LB_STATUS_OK)
        status = lb_gdino_measure(path, &params->detector, f->labels->n_tokens, (const int(*)[2])size, known ? 1 : 2, n,
                                  sizes, error);
    lb_find_free(f);
    return status;
}

lb_status lb_find_longest_text(const char *path, const char *labels_path, char **text, lb_error *error) {
    *text = NULL;
    lb_find_params params = lb_find_default_params();
    params.labels_path = labels_path;
    lb_find *f = NULL;
    lb_status status = read_file(path, &params, &f, error);
    if (status != LB_STATUS_OK)
        return status;
    static const char end[] = " [SEP]";
    const size_t n = strlen(f->labels->text) + sizeof end;
    if ((*text = malloc(n)))
        snprintf(*text, n, "%s%s", f->labels->text, end);
    else
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the labels");
    lb_find_free(f);
    return status;
}
