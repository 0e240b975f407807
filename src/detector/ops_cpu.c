/* Windows and samples on the CPU, as ggml's custom operations. Their sums are short, so they are written once and
 * compiled twice, for AVX2 and for any processor. */
#include "detector/ops.h"
#include "nn/avx2.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES_MAX = LB_OP_WINDOW_MAX * LB_OP_WINDOW_MAX, D_HEAD_MAX = LB_OP_D_HEAD_MAX };

typedef struct window_memory {
    float q[PLACES_MAX * D_HEAD_MAX], v[PLACES_MAX * D_HEAD_MAX];
    float k[D_HEAD_MAX * PLACES_MAX]; /* turned round: the keys of one channel lie together */
    float score[PLACES_MAX];
    int token[PLACES_MAX], region[PLACES_MAX];
} window_memory;

/* One window and head. */
LB_INLINE void attend(window_memory *m, const lb_op *op, const float *qkv, const float *bias, const float *position,
                      float *out, int head, int d_head, int channels, int n) {
    for (int p = 0; p < n; p++) {
        const float *row = m->token[p] < 0 ? bias : qkv + (size_t)m->token[p] * (size_t)(3 * channels);
        row += head * d_head;
        for (int c = 0; c < d_head; c++) {
            m->q[p * d_head + c] = row[c] * op->scale;
            m->k[c * n + p] = row[channels + c];
            m->v[p * d_head + c] = row[2 * channels + c];
        }
    }
    for (int p = 0; p < n; p++) {
        if (m->token[p] < 0)
            continue;
        float *score = m->score, largest = -INFINITY, sum = 0.0f, acc[D_HEAD_MAX] = {0};
        for (int k = 0; k < n; k++)
            score[k] = position[(size_t)p * (size_t)n + (size_t)k];
        for (int c = 0; c < d_head; c++) {
            const float q = m->q[p * d_head + c], *key = m->k + c * n;
            for (int k = 0; k < n; k++)
                score[k] += q * key[k];
        }
        for (int k = 0; k < n && op->windows.shift; k++)
            score[k] -= m->region[k] != m->region[p] ? 100.0f : 0.0f;
        for (int k = 0; k < n; k++)
            largest = score[k] > largest ? score[k] : largest;
        for (int k = 0; k < n; k++) {
            const float e = expf(score[k] - largest);
            sum += e;
            for (int c = 0; c < d_head; c++)
                acc[c] += e * m->v[k * d_head + c];
        }
        float *to = out + (size_t)m->token[p] * (size_t)channels + head * d_head;
        for (int c = 0; c < d_head; c++)
            to[c] = acc[c] / sum;
    }
}

LB_INLINE void windows(window_memory *m, const lb_op *op, int thread, int n_threads) {
    const struct ggml_tensor *qkv = op->src[0];
    const int channels = (int)op->node->ne[0], d_head = channels / op->n_heads;
    const int n = op->windows.window * op->windows.window;
    const int64_t n_windows = (int64_t)lb_windows_across(op->windows) * lb_windows_down(op->windows);
    const int64_t total = n_windows * qkv->ne[2];
    for (int64_t at = total * thread / n_threads; at < total * (thread + 1) / n_threads; at++) {
        const int i = (int)(at % n_windows);
        const size_t first = (size_t)(at / n_windows) * (size_t)qkv->ne[1];
        for (int p = 0; p < n; p++) {
            m->token[p] = lb_window_token(op->windows, i, p);
            m->region[p] = lb_window_region(op->windows, i, p);
        }
        for (int h = 0; h < op->n_heads; h++) {
            const float *rows = (const float *)qkv->data + first * (size_t)(3 * channels), *bias = op->src[1]->data;
            const float *position = (const float *)op->src[2]->data + (size_t)h * (size_t)n * (size_t)n;
            float *out = (float *)op->node->data + first * (size_t)channels;
            if (d_head == 32 && n == 49) /* the published sizes: loops of known length */
                attend(m, op, rows, bias, position, out, h, 32, channels, 49);
            else
                attend(m, op, rows, bias, position, out, h, d_head, channels, n);
        }
    }
}

LB_AVX2 static void windows_avx2(window_memory *m, const lb_op *op, int thread, int n_threads) {
    windows(m, op, thread, n_threads);
}

static void windows_plain(window_memory *m, const lb_op *op, int thread, int n_threads) {
    windows(m, op, thread, n_threads);
}

void lb_op_windows_cpu(struct ggml_tensor *dst, int thread, int n_threads, void *user) {
    const lb_op *op = user;
    (void)dst;
    window_memory *m = malloc(sizeof *m);
    if (!m)
        abort(); /* ggml's functions cannot fail; it ends so itself */
    (LB_HAS_AVX2 ? windows_avx2 : windows_plain)(m, op, thread, n_threads);
    free(m);
}

LB_INLINE void sample_head(const lb_op *op, const float *value, const float *offsets, const float *logits,
                           const float *keep, const float *const place[4], size_t channels, int d_head, float *out) {
    const int n = op->n_levels * op->n_points;
    float largest = -INFINITY, sum = 0.0f, acc[D_HEAD_MAX] = {0};
    for (int i = 0; i < n; i++)
        largest = logits[i] > largest ? logits[i] : largest;
    for (int i = 0; i < n; i++) {
        const int l = i / op->n_points;
        const lb_sample_level *level = &op->level[l];
        const float e = expf(logits[i] - largest);
        const float x = offsets[2 * i] * (place[2] ? place[2][l] : 1.0f) + place[0][l];
        const float y = offsets[2 * i + 1] * (place[3] ? place[3][l] : 1.0f) + place[1][l];
        const lb_corners corners = lb_sample_corners(level->width, level->height, x, y, e);
        sum += e;
        for (int k = 0; k < 4; k++) {
            const size_t token = (size_t)(level->start + corners.at[k]);
            const float w = corners.weight[k] * (keep ? keep[token] : 1.0f), *from = value + token * channels;
            if (w == 0.0f)
                continue;
            for (int c = 0; c < d_head; c++)
                acc[c] += w * from[c];
        }
    }
    for (int c = 0; c < d_head; c++)
        out[c] = acc[c] / sum;
}

LB_INLINE void sample(const lb_op *op, int thread, int n_threads) {
    const struct ggml_tensor *const *src = (const struct ggml_tensor *const *)op->src;
    const size_t d = (size_t)op->node->ne[0], n = (size_t)op->node->ne[1], total = n * (size_t)op->node->ne[2];
    const size_t d_head = d / (size_t)op->n_heads, n_samples = (size_t)(op->n_levels * op->n_points);
    const size_t n_tokens = (size_t)src[LB_SAMPLE_VALUE]->ne[1];
    const size_t n_places = (size_t)src[LB_SAMPLE_ORIGIN_X]->ne[3]; /* n where all pictures have the same */
    for (size_t q = total * (size_t)thread / (size_t)n_threads; q < total * (size_t)(thread + 1) / (size_t)n_threads;
         q++) {
        const float *place[4];
        for (int i = 0; i < 4; i++) {
            const struct ggml_tensor *t = src[(i < 2 ? LB_SAMPLE_ORIGIN_X : LB_SAMPLE_SCALE_X - 2) + i];
            place[i] = t ? (const float *)t->data + q % n_places * (size_t)op->n_levels : NULL;
        }
        const struct ggml_tensor *keep = src[LB_SAMPLE_KEEP];
        for (size_t h = 0; h < (size_t)op->n_heads; h++) {
            const size_t at = (q * (size_t)op->n_heads + h) * n_samples;
            const float *value = (const float *)src[LB_SAMPLE_VALUE]->data + q / n * n_tokens * d + h * d_head;
            const float *offsets = (const float *)src[LB_SAMPLE_OFFSETS]->data + 2 * at;
            const float *logits = (const float *)src[LB_SAMPLE_WEIGHTS]->data + at;
            const float *kept = keep ? (const float *)keep->data + q / n * n_tokens : NULL;
            float *out = (float *)op->node->data + q * d + h * d_head;
            if (d_head == 32) /* as published: a loop of known length */
                sample_head(op, value, offsets, logits, kept, place, d, 32, out);
            else
                sample_head(op, value, offsets, logits, kept, place, d, (int)d_head, out);
        }
    }
}

LB_AVX2 static void sample_avx2(const lb_op *op, int thread, int n_threads) {
    sample(op, thread, n_threads);
}

static void sample_plain(const lb_op *op, int thread, int n_threads) {
    sample(op, thread, n_threads);
}

void lb_op_sample_cpu(struct ggml_tensor *dst, int thread, int n_threads, void *user) {
    (void)dst;
    (LB_HAS_AVX2 ? sample_avx2 : sample_plain)(user, thread, n_threads);
}
