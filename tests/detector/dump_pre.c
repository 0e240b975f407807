/* Tokens, pictures and detections for tests/checks/check_detector_pre.py, one request after the other.
 *
 *     dump_pre VOCABULARY.gguf
 *
 * stdin: int32 [2] operation, n; then by operation (texts are int32 length and so many bytes):
 *   0 a text                                  -> tokens as ids
 *   1 n texts: labels, kept for operation 4   -> tokens as ids, then int32 [n][2] first and end, then the unknown words
 *   2 int32 [n][2] widths and heights         -> int32 [n][2] after resizing
 *   3 n pictures: int32 width, height, rgb    -> int32 width, height, [n][2], f32 [n][3][height][width]
 *   4 n queries: int32 width, height, f32 box and text threshold, f32 [n][tokens], f32 [n][4]
 *                                             -> for each: int32 query, label, f32 box [4], score, label score, text
 *   5 n ids                                   -> a text
 * stdout: int32 [2] status (then n is a message's length, and the message follows), n of what follows.
 */
#include "detector/labels.h"
#include "detector/postprocess.h"
#include "detector/preprocess.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what) {
    fprintf(stderr, "dump_pre: %s\n", what);
    exit(1);
}

static void *allocate(size_t n) {
    void *data = malloc(n ? n : 1);
    if (!data)
        fail("out of memory");
    return data;
}

static void take(void *to, size_t n) {
    if (n && fread(to, n, 1, stdin) != 1)
        fail("a request ends early");
}

static int32_t take_int(void) {
    int32_t value;
    take(&value, sizeof value);
    return value;
}

static char *take_text(void) {
    int32_t n = take_int();
    char *text = allocate((size_t)n + 1);
    take(text, (size_t)n);
    text[n] = 0;
    return text;
}

static void give(const void *from, size_t n) {
    if (n)
        fwrite(from, n, 1, stdout);
}

static void give_int(int32_t value) {
    give(&value, sizeof value);
}

static void give_text(const char *text) {
    give_int(text ? (int32_t)strlen(text) : 0);
    give(text ? text : "", text ? strlen(text) : 0);
}

/* False: the message was given. */
static int begin(lb_status status, const lb_error *error, int32_t n) {
    give_int((int32_t)status);
    if (status == LB_STATUS_OK)
        give_int(n);
    else
        give_text(error->message);
    return status == LB_STATUS_OK;
}

static void pictures(int n) {
    lb_error error = {0};
    lb_preprocess_params params = lb_preprocess_default_params();
    lb_image_view *views = allocate((size_t)n * sizeof *views);
    for (int i = 0; i < n; i++) {
        views[i].width = take_int();
        views[i].height = take_int();
        views[i].stride = 3 * (size_t)views[i].width;
        uint8_t *data = allocate(views[i].stride * (size_t)views[i].height);
        take(data, views[i].stride * (size_t)views[i].height);
        views[i].data = data;
    }
    lb_preprocess_batch batch;
    if (begin(lb_preprocess_make(&params, views, n, &batch, &error), &error, n)) {
        give_int(batch.width);
        give_int(batch.height);
        for (int i = 0; i < n; i++) {
            give_int(batch.widths[i]);
            give_int(batch.heights[i]);
        }
        give(batch.pixels, (size_t)n * 3 * (size_t)batch.width * (size_t)batch.height * sizeof(float));
    }
    lb_preprocess_batch_free(&batch);
    for (int i = 0; i < n; i++)
        free((void *)views[i].data);
    free(views);
}

static void detections(const lb_wordpiece *tokenizer, const lb_labels *labels, int n) {
    lb_error error = {0};
    lb_postprocess_params params = lb_postprocess_default_params();
    if (!labels)
        fail("no labels yet");
    int width = take_int(), height = take_int();
    take(&params.box_threshold, sizeof(float));
    take(&params.text_threshold, sizeof(float));
    size_t n_logits = (size_t)n * (size_t)labels->n_tokens;
    float *logits = allocate(n_logits * sizeof *logits), *boxes = allocate((size_t)n * 4 * sizeof *boxes);
    take(logits, n_logits * sizeof *logits);
    take(boxes, (size_t)n * 4 * sizeof *boxes);
    lb_detections d;
    lb_status status = lb_postprocess(tokenizer, labels, &params, logits, boxes, n, width, height, &d, &error);
    if (begin(status, &error, d.n))
        for (int i = 0; i < d.n; i++) {
            give_int(d.item[i].query);
            give_int(d.item[i].label);
            give(d.item[i].box, sizeof d.item[i].box);
            give(&d.item[i].score, sizeof(float));
            give(&d.item[i].label_score, sizeof(float));
            give_text(d.item[i].raw_label);
        }
    lb_detections_free(&d);
    free(logits);
    free(boxes);
}

static lb_labels *read_labels(const lb_wordpiece *tokenizer, int n) {
    lb_error error = {0};
    lb_labels *labels;
    char **text = allocate((size_t)n * sizeof *text);
    for (int i = 0; i < n; i++)
        text[i] = take_text();
    lb_status status = lb_labels_create(tokenizer, (const char *const *)text, n, 256, &labels, &error);
    if (begin(status, &error, labels ? labels->n_tokens : 0)) {
        give(labels->token, (size_t)labels->n_tokens * sizeof(int32_t));
        for (int i = 0; i < n; i++) {
            give_int(labels->first[i]);
            give_int(labels->end[i]);
        }
        give_text(labels->unknown);
    }
    for (int i = 0; i < n; i++)
        free(text[i]);
    free(text);
    return labels;
}

int main(int argc, char **argv) {
    lb_error error = {0};
    lb_gguf *file;
    lb_wordpiece *tokenizer;
    lb_labels *labels = NULL;
    if (argc != 2)
        fail("dump_pre VOCABULARY.gguf");
    if (lb_gguf_open(argv[1], &file, &error) != LB_STATUS_OK ||
        lb_wordpiece_from_gguf(file, &tokenizer, &error) != LB_STATUS_OK)
        fail(error.message);
    int32_t request[2];
    while (fread(request, sizeof request, 1, stdin) == 1) {
        const int n = request[1];
        if (request[0] == 0) {
            char *text = take_text();
            lb_wordpiece_tokens tokens;
            lb_status status = lb_wordpiece_encode(tokenizer, text, &tokens, &error);
            if (begin(status, &error, (int32_t)tokens.n))
                give(tokens.id, tokens.n * sizeof *tokens.id);
            lb_wordpiece_tokens_free(&tokens);
            free(text);
        } else if (request[0] == 1) {
            lb_labels_free(labels);
            labels = read_labels(tokenizer, n);
        } else if (request[0] == 2) {
            lb_preprocess_params params = lb_preprocess_default_params();
            give_int(0);
            give_int(n);
            for (int i = 0; i < n; i++) {
                int width = take_int(), height = take_int();
                (void)lb_preprocess_size(&params, width, height, &width, &height, &error); /* 0 0 when refused */
                give_int(width);
                give_int(height);
            }
        } else if (request[0] == 3) {
            pictures(n);
        } else if (request[0] == 4) {
            detections(tokenizer, labels, n);
        } else if (request[0] == 5) {
            int32_t *id = allocate((size_t)n * sizeof *id);
            take(id, (size_t)n * sizeof *id);
            char *text;
            if (begin(lb_wordpiece_decode(tokenizer, id, (size_t)n, &text, &error), &error, 1))
                give_text(text);
            free(text);
            free(id);
        } else {
            fail("no such operation");
        }
        fflush(stdout);
    }
    lb_labels_free(labels);
    lb_wordpiece_free(tokenizer);
    lb_gguf_close(file);
    return 0;
}
