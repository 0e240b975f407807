/* The detector's own operations: several of ggml's in one pass over memory. On the CPU a function runs as ggml's custom
 * operation (windows and samples alone, the rest is left to ggml); ggml-cuda takes no custom operations, so there the
 * plan cuts the graph at them and cuda.h launches our kernels between its pieces.
 */
#ifndef LB_DETECTOR_OPS_H
#define LB_DETECTOR_OPS_H

#include "detector/kernel_index.h"

#include <ggml.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LB_OP_LEVELS_MAX = 8, LB_OP_WINDOW_MAX = 16, LB_OP_D_HEAD_MAX = 64 };

typedef enum lb_op_kind {
    LB_OP_LINEAR,  /* src: x, w, [bias], [residual]. out = act(w x + bias) + residual */
    LB_OP_NORM,    /* src: x, weight, bias. LayerNorm, of four joined tokens where merge is set */
    LB_OP_CAST,    /* src: x, [y]. out = x + y, y repeated along the batch */
    LB_OP_WINDOWS, /* src: qkv, its bias, position bias. Swin's attention within windows, without its products */
    LB_OP_SAMPLE,  /* src: see lb_sample_src. Deformable attention, without its products */
    LB_OP_PATCHES, /* src: bytes, table, sizes. 8-bit pixels to rows of normalised patches */
    LB_OP_KINDS
} lb_op_kind;

typedef enum lb_act { LB_ACT_NONE, LB_ACT_RELU, LB_ACT_GELU } lb_act; /* GELU with erf */

/* Sources of LB_OP_SAMPLE; the last ones are NULL where they are not needed.
 * value: ne = [d, S, B]; offsets: ne = [2 P L H, n, B]; weights (before the softmax): ne = [P L H, n, B]; origins and
 * scales: ne = [1, L, 1, n * B or n]; keep: ne = [1, S, B] */
typedef enum lb_sample_src {
    LB_SAMPLE_VALUE,
    LB_SAMPLE_OFFSETS,
    LB_SAMPLE_WEIGHTS,
    LB_SAMPLE_ORIGIN_X,
    LB_SAMPLE_ORIGIN_Y,
    LB_SAMPLE_KEEP,
    LB_SAMPLE_SCALE_X,
    LB_SAMPLE_SCALE_Y,
    LB_SAMPLE_SRCS
} lb_sample_src;

typedef struct lb_sample_level {
    int width, height, start; /* first token */
} lb_sample_level;

typedef struct lb_op {
    lb_op_kind kind;
    struct ggml_tensor *node; /* with the sources below, in the order above */
    struct ggml_tensor *src[LB_SAMPLE_SRCS];
    /* LINEAR */
    bool exact; /* f32 not in tf32 */
    lb_act act;
    struct ggml_tensor *bias, *residual; /* NULL: none */
    /* NORM */
    float eps;
    bool merge; /* x: ne = [C, width * height, B], out: ne = [4 C, (width + 1) / 2 * (height + 1) / 2, B] */
    /* WINDOWS (and the map's size for a merge) */
    lb_windows windows;
    int n_heads; /* SAMPLE too */
    float scale;
    /* SAMPLE */
    int n_points, n_levels;
    lb_sample_level level[LB_OP_LEVELS_MAX];
    /* PATCHES */
    int patch;
    void *prepared; /* cuda.h's own */
} lb_op;

const char *lb_op_name(const lb_op *op); /* "linear" */

/* What preparing an operation for CUDA takes on the device: a bias in f16, as the product's result is. */
size_t lb_op_prepared_bytes(const lb_op *op);

/* ops_cpu.c: as ggml's custom operations; user is the lb_op. */
void lb_op_windows_cpu(struct ggml_tensor *dst, int thread, int n_threads, void *user);
void lb_op_sample_cpu(struct ggml_tensor *dst, int thread, int n_threads, void *user);

#ifdef __cplusplus
}
#endif

#endif
