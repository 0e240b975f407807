/* The parts of the graph that have an operation of their own, or are made of ggml's where there is none. */
#include "detector/model_internal.h"
#include "nn/gelu.h"

#include <math.h>
#include <stdlib.h>

enum { N_OPS = 1 << 10 };

const char *lb_op_name(const lb_op *op) {
    static const char *const names[LB_OP_KINDS] = {
        [LB_OP_LINEAR] = "linear",   [LB_OP_NORM] = "norm",     [LB_OP_CAST] = "cast",
        [LB_OP_WINDOWS] = "windows", [LB_OP_SAMPLE] = "sample", [LB_OP_PATCHES] = "patches"};
    return names[op->kind];
}

size_t lb_op_prepared_bytes(const lb_op *op) {
    const bool converts = op->kind == LB_OP_LINEAR && op->bias && op->node->type == GGML_TYPE_F16;
    return converts ? (size_t)op->node->ne[0] * sizeof(ggml_fp16_t) : 0;
}

static lb_op *new_op(lb_gdino_graph *g, lb_op_kind kind) {
    if (!g->ops)
        g->ops = calloc(N_OPS, sizeof *g->ops);
    if (!g->ops || g->n_ops == N_OPS) {
        g->failed = true; /* the graph is not run; what an operation before left here is of another place in it */
        g->nowhere = (lb_op){.kind = kind};
        return &g->nowhere;
    }
    lb_op *op = &g->ops[g->n_ops++];
    op->kind = kind;
    return op;
}

/* The custom operation with op's sources; NULL sources are left out of ggml's list, which knows no gaps. */
static struct ggml_tensor *add_op(lb_gdino_graph *g, lb_op *op, enum ggml_type type, int64_t ne0, int64_t ne1,
                                  int64_t ne2, ggml_custom_op_t on_cpu) {
    struct ggml_tensor *args[LB_SAMPLE_SRCS + 2];
    int n = 0;
    for (int i = 0; i < LB_SAMPLE_SRCS; i++)
        if (op->src[i])
            args[n++] = op->src[i];
    if (op->bias)
        args[n++] = op->bias;
    if (op->residual)
        args[n++] = op->residual;
    op->node = ggml_custom_4d(g->ctx, type, ne0, ne1, ne2, 1, args, n, on_cpu, GGML_N_TASKS_MAX, op);
    return op->node;
}

enum ggml_type lb_gdino_act_type(const lb_gdino_graph *g) {
    return g->half ? GGML_TYPE_F16 : GGML_TYPE_F32;
}

/* Kernels of ours take these weights; what is quantized is ggml's. */
static bool own_linear(const lb_gdino_graph *g, const lb_linear *layer) {
    return g->way == LB_GDINO_BY_CUDA && layer->w->type == lb_gdino_act_type(g);
}

struct ggml_tensor *lb_gdino_linear(lb_gdino_graph *g, const lb_linear *layer, struct ggml_tensor *x, lb_act act,
                                    struct ggml_tensor *residual, enum ggml_type type) {
    struct ggml_context *ctx = g->ctx;
    if (own_linear(g, layer)) {
        lb_op *op = new_op(g, LB_OP_LINEAR);
        op->src[0] = lb_gdino_cast(g, x, NULL);
        op->src[1] = layer->w;
        op->act = act;
        op->exact = g->exact;
        op->bias = layer->b;
        op->residual = residual;
        return add_op(g, op, type, layer->w->ne[1], x->ne[1], x->ne[2] * x->ne[3], NULL);
    }
    if (x->type != GGML_TYPE_F32)
        x = ggml_cast(ctx, x, GGML_TYPE_F32);
    if (act == LB_ACT_GELU) {
        x = lb_gelu(ctx, g->way == LB_GDINO_BY_FUNCTION, lb_gdino_product(g, layer->w, x), layer->b);
    } else {
        x = lb_linear_apply(g, layer, x);
        x = act == LB_ACT_RELU ? ggml_relu(ctx, x) : x;
    }
    x = residual ? ggml_add(ctx, x, residual) : x;
    return type == GGML_TYPE_F32 ? x : ggml_cast(ctx, x, type);
}

struct ggml_tensor *lb_gdino_norm(lb_gdino_graph *g, const lb_norm *norm, struct ggml_tensor *x, float eps,
                                  enum ggml_type type) {
    if (g->way != LB_GDINO_BY_CUDA)
        return lb_norm_apply(g->ctx, norm, x, eps);
    lb_op *op = new_op(g, LB_OP_NORM);
    op->src[0] = x, op->src[1] = norm->w, op->src[2] = norm->b;
    op->eps = eps;
    return add_op(g, op, type, x->ne[0], x->ne[1], x->ne[2] * x->ne[3], NULL);
}

struct ggml_tensor *lb_gdino_merge_norm(lb_gdino_graph *g, const lb_norm *norm, struct ggml_tensor *x, int width,
                                        int height, float eps) {
    lb_op *op = new_op(g, LB_OP_NORM);
    op->src[0] = x, op->src[1] = norm->w, op->src[2] = norm->b;
    op->eps = eps;
    op->merge = true;
    op->windows = (lb_windows){.width = width, .height = height};
    return add_op(g, op, lb_gdino_act_type(g), 4 * x->ne[0], (int64_t)((width + 1) / 2) * ((height + 1) / 2), x->ne[2],
                  NULL);
}

struct ggml_tensor *lb_gdino_cast(lb_gdino_graph *g, struct ggml_tensor *x, struct ggml_tensor *y) {
    if (g->way != LB_GDINO_BY_CUDA)
        return y ? ggml_add(g->ctx, x, y) : x;
    if (!y && x->type == lb_gdino_act_type(g))
        return x;
    lb_op *op = new_op(g, LB_OP_CAST);
    op->src[0] = x, op->src[1] = y;
    return add_op(g, op, lb_gdino_act_type(g), x->ne[0], x->ne[1], x->ne[2] * x->ne[3], NULL);
}

bool lb_gdino_windows_fit(const lb_gdino_graph *g, int64_t d_head) {
    const int window = g->model->hparams.swin.window_size;
    if (window > LB_OP_WINDOW_MAX || d_head > LB_OP_D_HEAD_MAX)
        return false;
    if (g->way == LB_GDINO_BY_CUDA) /* cuda_kernels.cuh has one for each of these */
        return d_head == 12 || d_head == 16 || d_head == 24 || d_head == 32;
    return g->way == LB_GDINO_BY_FUNCTION;
}

bool lb_gdino_sample_fits(const lb_gdino_graph *g, int64_t d_head) {
    return g->way != LB_GDINO_BY_GGML && d_head <= LB_OP_D_HEAD_MAX && (g->way != LB_GDINO_BY_CUDA || d_head % 4 == 0);
}

struct ggml_tensor *lb_gdino_windows(lb_gdino_graph *g, const lb_swin_block *block, struct ggml_tensor *qkv,
                                     int n_heads, lb_windows windows) {
    lb_op *op = new_op(g, LB_OP_WINDOWS);
    const int64_t channels = qkv->ne[0] / 3;
    op->src[0] = qkv, op->src[1] = block->qkv.b, op->src[2] = block->bias;
    op->windows = windows;
    op->n_heads = n_heads;
    op->scale = 1.0f / sqrtf((float)(channels / n_heads));
    return add_op(g, op, g->way == LB_GDINO_BY_CUDA ? lb_gdino_act_type(g) : GGML_TYPE_F32, channels, qkv->ne[1],
                  qkv->ne[2], lb_op_windows_cpu);
}

struct ggml_tensor *lb_gdino_sample(lb_gdino_graph *g, const lb_deformable *layer, struct ggml_tensor *value,
                                    struct ggml_tensor *offsets, struct ggml_tensor *weights, struct ggml_tensor *keep,
                                    const lb_sampling *sampling) {
    lb_op *op = new_op(g, LB_OP_SAMPLE);
    op->src[LB_SAMPLE_VALUE] = value;
    op->src[LB_SAMPLE_OFFSETS] = offsets;
    op->src[LB_SAMPLE_WEIGHTS] = weights;
    op->src[LB_SAMPLE_ORIGIN_X] = sampling->origin[0];
    op->src[LB_SAMPLE_ORIGIN_Y] = sampling->origin[1];
    op->src[LB_SAMPLE_KEEP] = keep;
    op->src[LB_SAMPLE_SCALE_X] = sampling->scale[0];
    op->src[LB_SAMPLE_SCALE_Y] = sampling->scale[1];
    op->n_heads = layer->n_heads;
    op->n_points = layer->n_points;
    op->n_levels = g->geometry->n_levels;
    for (int i = 0; i < op->n_levels; i++) {
        const lb_gdino_level *level = &g->geometry->level[i];
        op->level[i] = (lb_sample_level){level->width, level->height, level->start};
    }
    return add_op(g, op, g->way == LB_GDINO_BY_CUDA ? lb_gdino_act_type(g) : GGML_TYPE_F32, value->ne[0],
                  offsets->ne[1], offsets->ne[2], lb_op_sample_cpu);
}

struct ggml_tensor *lb_gdino_patches(lb_gdino_graph *g, struct ggml_tensor *bytes, struct ggml_tensor *table,
                                     struct ggml_tensor *sizes, int patch) {
    lb_op *op = new_op(g, LB_OP_PATCHES);
    op->src[0] = bytes, op->src[1] = table, op->src[2] = sizes;
    op->patch = patch;
    const int64_t width = bytes->ne[0] / 3 / patch, height = bytes->ne[1] / patch;
    return add_op(g, op, lb_gdino_act_type(g), 3 * (int64_t)patch * patch, width * height, bytes->ne[2], NULL);
}
