/* cuda.h on the CPU: the graph that is cut for our kernels, with the kernels run by cuda_on_cpu.h and products as plain
 * sums. Linked before the archive, it takes the place of src/detector/cuda_none.c. For small models. */
#include "cuda_on_cpu.h"

#include "detector/cuda.h"
#include "detector/cuda_kernels.cuh"

struct lb_cuda {
    int nothing;
};

static size_t rows_of(const ggml_tensor *t) {
    return (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
}

static size_t count(const ggml_tensor *t) {
    return (size_t)t->ne[0] * rows_of(t);
}

static float at(const ggml_tensor *t, size_t i) {
    return t->type == GGML_TYPE_F16 ? to_float(((const __half *)t->data)[i]) : ((const float *)t->data)[i];
}

template <typename T> static void linear(const lb_op *op) {
    const ggml_tensor *x = op->src[0], *w = op->src[1];
    const size_t n_in = (size_t)w->ne[0], n_out = (size_t)w->ne[1];
    std::vector<float> row(n_in), weight(n_in * n_out);
    for (size_t i = 0; i < weight.size(); i++)
        weight[i] = at(w, i);
    for (size_t r = 0; r < rows_of(x); r++) {
        for (size_t i = 0; i < n_in; i++)
            row[i] = at(x, r * n_in + i);
        for (size_t o = 0; o < n_out; o++) {
            float v = 0.0f;
            for (size_t i = 0; i < n_in; i++)
                v += row[i] * weight[o * n_in + i];
            v += op->bias ? at(op->bias, o) : 0.0f;
            v = op->act == LB_ACT_RELU ? (v < 0.0f ? 0.0f : v) : op->act == LB_ACT_GELU ? 0.5f * v * (1.0f + erff(v * 0.70710678f)) : v;
            store((T *)op->node->data + r * n_out + o, v + (op->residual ? at(op->residual, r * n_out + o) : 0.0f));
        }
    }
}

template <typename T> static const char *launch(lb_op *op) {
    ggml_tensor *out = op->node;
    const size_t n = count(out);
    T *to = (T *)out->data;
    const float *in[LB_SAMPLE_SRCS];
    for (int i = 0; i < LB_SAMPLE_SRCS; i++)
        in[i] = op->src[i] ? (const float *)op->src[i]->data : NULL;
    const auto blocks = [](size_t n_all, size_t per_block) { return dim3{(unsigned)((n_all + per_block - 1) / per_block), 1, 1}; };
    switch (op->kind) {
    case LB_OP_LINEAR:
        linear<T>(op);
        return NULL;
    case LB_OP_NORM:
        cuda_on_cpu::launch(blocks(rows_of(out), 8), 256, [&] {
            lb_norm_kernel<T, 12>(in[0], in[1], in[2], to, (int)out->ne[0], rows_of(out), op->eps, op->merge ? op->windows.width : 0,
                                  op->windows.height);
        });
        return out->ne[0] <= 384 ? NULL : "too wide for this test";
    case LB_OP_CAST:
        cuda_on_cpu::launch(blocks(n, 512), 128,
                            [&] { lb_cast_kernel<T>(in[0], in[1], to, n, op->src[1] ? count(op->src[1]) : 4); });
        return NULL;
    case LB_OP_PATCHES:
        cuda_on_cpu::launch(blocks(n, 256), 256, [&] {
            lb_patches_kernel<T>((const unsigned char *)op->src[0]->data, in[1], (const int *)op->src[2]->data, to,
                                 (int)op->src[0]->ne[0] / 3, (int)op->src[0]->ne[1], op->patch, n);
        });
        return NULL;
    case LB_OP_SAMPLE: {
        lb_sample_shape s = {};
        s.n_queries = (int)out->ne[1], s.n_images = (int)out->ne[2], s.n_tokens = (int)op->src[0]->ne[1];
        s.n_heads = op->n_heads, s.d_head = (int)out->ne[0] / op->n_heads, s.n_points = op->n_points;
        s.n_levels = op->n_levels, s.n_places = (int)op->src[LB_SAMPLE_ORIGIN_X]->ne[3];
        memcpy(s.level, op->level, sizeof s.level);
        cuda_on_cpu::launch(blocks(n / 4, 128), 128, [&] {
            lb_sample_kernel<T, 4>((const T *)op->src[0]->data, in[LB_SAMPLE_OFFSETS], in[LB_SAMPLE_WEIGHTS], in[LB_SAMPLE_ORIGIN_X],
                                   in[LB_SAMPLE_ORIGIN_Y], in[LB_SAMPLE_SCALE_X], in[LB_SAMPLE_SCALE_Y], in[LB_SAMPLE_KEEP], to, s);
        });
        return NULL;
    }
    case LB_OP_WINDOWS: {
        const int places = op->windows.window * op->windows.window, d_head = (int)out->ne[0] / op->n_heads;
        const dim3 grid = {(unsigned)(lb_windows_across(op->windows) * lb_windows_down(op->windows) * out->ne[2]),
                           (unsigned)op->n_heads, 1};
        const T *qkv = (const T *)op->src[0]->data;
        cuda_on_cpu::launch(grid, ((places + 1) / 2 + 31) / 32 * 32, [&] {
            if (d_head == 12)
                lb_windows_kernel<T, 12, 8>(qkv, in[1], in[2], to, op->windows, op->n_heads, op->scale);
            else if (d_head == 16)
                lb_windows_kernel<T, 16, 8>(qkv, in[1], in[2], to, op->windows, op->n_heads, op->scale);
            else if (d_head == 24)
                lb_windows_kernel<T, 24, 8>(qkv, in[1], in[2], to, op->windows, op->n_heads, op->scale);
            else
                lb_windows_kernel<T, 32, 8>(qkv, in[1], in[2], to, op->windows, op->n_heads, op->scale);
        });
        return NULL;
    }
    default:
        return "no such operation";
    }
}

extern "C" lb_cuda *lb_cuda_open(const void *, const char **why) {
    static lb_cuda cuda;
    *why = NULL;
    return &cuda;
}

extern "C" size_t lb_cuda_bytes(void) {
    return 0;
}

extern "C" const char *lb_cuda_launch(lb_cuda *, lb_op *op) {
    return op->node->type == GGML_TYPE_F16 ? launch<__half>(op) : launch<float>(op);
}

extern "C" const char *lb_cuda_wait(lb_cuda *) {
    return NULL;
}

extern "C" void lb_cuda_release(lb_op *) {}

extern "C" void lb_cuda_close(lb_cuda *) {}
