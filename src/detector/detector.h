/* Grounding DINO on ggml: pictures and a text of labels in, class logits for each of the text's tokens and boxes out.
 *
 * Takes: the GGUF that `lowbeam convert` writes; 8-bit RGB pictures, already brought to their size; token ids of the
 * labels. Gives: num_queries boxes a picture with a logit for each token. Resizing, tokenizing, thresholds and labels
 * stand beside it (preprocess.h, wordpiece.h, postprocess.h).
 *
 *     lb_detector *detector;
 *     lb_detector_open("det.gguf", &params, &detector, &error);
 *     lb_detector_set_labels(detector, tokens, n_tokens, &error);          // once for a set of labels
 *     lb_detector_run(detector, pictures, n, logits, boxes, &error);
 *     lb_detector_free(detector);
 *
 * Source: transformers 5.23, models/grounding_dino/modeling_grounding_dino.py (GroundingDinoForObjectDetection).
 */
#ifndef LB_DETECTOR_DETECTOR_H
#define LB_DETECTOR_DETECTOR_H

#include "lowbeam/status.h"
#include "nn/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lb_detector lb_detector;
struct ggml_tensor;

typedef struct lb_detector_params {
    lb_device device;
    int n_threads;     /* CPU backend; 0: as many as there are cores */
    int frame_batch;   /* most pictures in one graph; 0: 8 on a GPU, 1 on the CPU. Halved while memory is short. */
    bool rest_compute; /* lb_detector_rest gives back activations, and the backend with its pool */
    bool rest_weights; /* ... and the weights, which then wait in pinned host memory */
    bool gathers;      /* by ggml's operations alone, on any device: for comparison */
    bool kernels;      /* the graph for our kernels on the CPU too: for tests that bring them */
    bool exact;        /* f32 models on a GPU: products in f32 and not in tf32 */
} lb_detector_params;

size_t lb_detector_activation_bytes(const lb_detector *detector); /* of the last batch's shape */

/* Errors: NOT_FOUND, IO, FORMAT, UNSUPPORTED (another kind of file; an operation that the device lacks), OUT_OF_MEMORY,
 * BACKEND. Memory on the device: the weights but for BERT's. */
lb_status lb_detector_open(const char *path, const lb_detector_params *params, lb_detector **detector, lb_error *error);

int lb_detector_n_queries(const lb_detector *detector);
int lb_detector_max_text_len(const lb_detector *detector); /* most tokens of a text, [CLS] and [SEP] included */
int lb_detector_n_tokens(const lb_detector *detector);     /* of the labels that are set; 0: none */

/* tokens: [CLS], the labels with '.' or '?' after each, [SEP], as BERT's ids. The text features are computed once and
 * kept; BERT's weights are on the device only during the call. Replaces labels set before; on failure those stay.
 * Errors: INVALID_ARGUMENT (more than max_text_len, an id outside the vocabulary), OUT_OF_MEMORY, BACKEND, NOT_FINITE.
 */
lb_status lb_detector_set_labels(lb_detector *detector, const int32_t *tokens, int n_tokens, lb_error *error);

/* 8-bit RGB, rows of width * 3 bytes, not normalised. */
typedef struct lb_detector_picture {
    const uint8_t *rgb;
    int width, height;
} lb_detector_picture;

/* Pictures of one batch that differ in size are padded to the largest, as the reference's processor does; frame_batch
 * following ones make a batch. logits: [n][n_queries][n_tokens]; boxes: [n][n_queries][4], cxcywh, shares of the
 * picture without padding. Queries in the reference's order (best proposal first).
 * Errors: INVALID_ARGUMENT (no labels set, a picture too small or too large), OUT_OF_MEMORY, BACKEND, NOT_FINITE.
 * Memory on the device: activations by size and batch, kept until a batch of another shape comes. */
lb_status lb_detector_run(lb_detector *detector, const lb_detector_picture *pictures, int n, float *logits,
                          float *boxes, lb_error *error);

/* Between the videos: gives back to the device what params say may rest. Nothing is lost: the next run takes it again.
 */
void lb_detector_rest(lb_detector *detector);

/* For tests. watch: called after each batch with every named intermediate (model_internal.h's marks). choice: NULL or
 * [n_queries] a picture of the batch, taken instead of the best proposals. */
typedef struct lb_detector_probe {
    void (*watch)(void *user, const char *name, const int64_t ne[4], const float *values);
    void *user;
    const int32_t *choice;
    /* NULL, or called after each node, which then runs alone: seconds from its start until the device is idle. */
    void (*timed)(void *user, const char *what, const struct ggml_tensor *node, double seconds);
} lb_detector_probe;
void lb_detector_set_probe(lb_detector *detector, const lb_detector_probe *probe); /* NULL: none */

void lb_detector_free(lb_detector *detector);

#endif
