/* The graphs for batches of one shape and the memory that they run in, and the text features that they start from. */
#ifndef LB_DETECTOR_PLAN_INTERNAL_H
#define LB_DETECTOR_PLAN_INTERNAL_H

#include "detector/detector.h"
#include "detector/model_internal.h"

/* What labels become: on the device until they are replaced. */
typedef struct lb_gdino_text {
    int n;     /* T */
    int place; /* of its device: the ledger's number */
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *features; /* ne = [d, T] */
    lb_gdino_text_constants constants;
} lb_gdino_text;

/* Runs BERT, whose weights must be loaded. */
lb_status lb_gdino_text_make(const lb_gdino_model *model, const lb_device *device, ggml_backend_t backend,
                             const int32_t *tokens, int n, bool exact, const lb_detector_probe *probe,
                             lb_gdino_text *text, lb_error *error);
/* The text as graphs see it, of tensors that only count as allocated; and what making it would take on the device:
 * features that stay, and activations while BERT runs, whose weights must be declared. */
lb_status lb_gdino_text_measure(const lb_gdino_model *model, const lb_device *device, int n, bool exact,
                                lb_gdino_text *text, size_t *feature_bytes, size_t *compute_bytes, lb_error *error);
void lb_gdino_text_free(lb_gdino_text *text);

typedef struct lb_gdino_plan lb_gdino_plan;

typedef struct lb_gdino_plan_options {
    const lb_device *device;
    lb_gdino_way way;
    struct lb_cuda *cuda;       /* BY_CUDA, else NULL */
    const float (*normal)[256]; /* [3]: 8-bit values normalised, by channel */
    bool exact;                 /* no product in tf32 */
    bool watch;
    bool measure; /* nothing is allocated (backend NULL): lb_gdino_plan_bytes tells what would be */
} lb_gdino_plan_options;

/* size: [n][2], width and height. model and text must outlive the plan. */
lb_status lb_gdino_plan_make(const lb_gdino_model *model, ggml_backend_t backend, const lb_gdino_text *text,
                             const lb_gdino_plan_options *options, const int *size, int n, lb_gdino_plan **plan,
                             lb_error *error);
bool lb_gdino_plan_fits(const lb_gdino_plan *plan, const int *size, int n);
void lb_gdino_plan_pixels(const lb_gdino_plan *plan, int *width, int *height); /* a whole number of patches */
/* pixels: f32 [n][3][height][width], normalised; BY_CUDA 8-bit [n][height][width][3]. */
size_t lb_gdino_plan_pixel_bytes(const lb_gdino_plan *plan);
lb_status lb_gdino_plan_run(lb_gdino_plan *plan, const void *pixels, const lb_detector_probe *probe, float *logits,
                            float *boxes, lb_error *error);
size_t lb_gdino_plan_bytes(const lb_gdino_plan *plan); /* activations and constants on the device */
void lb_gdino_plan_free(lb_gdino_plan *plan);

/* Calls the probe with every marked tensor of a graph that has run. Errors: OUT_OF_MEMORY. */
lb_status lb_gdino_show(const struct ggml_cgraph *graph, const lb_detector_probe *probe, lb_error *error);

#endif
