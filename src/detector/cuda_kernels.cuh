/* The kernels of cuda.cu. T is what products take and give: float or __half. Rows and channels are ggml's ne[1] and
 * ne[0]. Nothing here is more than CUDA C with shuffles, so that tests/detector/test_kernels.cpp can run it on a CPU. */
#ifndef LB_DETECTOR_CUDA_KERNELS_CUH
#define LB_DETECTOR_CUDA_KERNELS_CUH

#include "detector/ops.h"

#include <string.h>

/* A block's memory, as much as the launch gives it. */
#ifndef LB_SHARED
#define LB_SHARED(name) extern __shared__ float4 name[]
#endif

/* Four values at once. */
struct lb_four {
    float x[4];
};

__device__ static inline lb_four load4(const float *from) {
    const float4 v = *(const float4 *)from;
    return lb_four{{v.x, v.y, v.z, v.w}};
}

__device__ static inline lb_four load4(const __half *from) {
    const uint2 v = *(const uint2 *)from;
    __half2 half[2];
    memcpy(half, &v, sizeof half);
    const float2 a = __half22float2(half[0]), b = __half22float2(half[1]);
    return lb_four{{a.x, a.y, b.x, b.y}};
}

__device__ static inline void store4(float *to, lb_four v) {
    *(float4 *)to = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
}

__device__ static inline void store4(__half *to, lb_four v) {
    const __half2 half[2] = {__floats2half2_rn(v.x[0], v.x[1]), __floats2half2_rn(v.x[2], v.x[3])};
    uint2 both;
    memcpy(&both, half, sizeof both);
    *(uint2 *)to = both;
}

__device__ static inline float to_float(float x) {
    return x;
}

__device__ static inline float to_float(__half x) {
    return __half2float(x);
}

__device__ static inline void store(float *to, float x) {
    *to = x;
}

__device__ static inline void store(__half *to, float x) {
    *to = __float2half_rn(x);
}

__device__ static inline float warp_sum(float x) {
    for (int i = 16; i > 0; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

/* out = act(x + bias), in place allowed. n_channels and n are multiples of 4. */
template <typename T> __global__ void lb_finish_kernel(T *x, const float *bias, const float *residual, int n_channels,
                                                       size_t n, int act) {
    const size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (at >= n)
        return;
    lb_four v = load4(x + at), b = {{0.0f, 0.0f, 0.0f, 0.0f}}, r = b;
    if (bias)
        b = load4(bias + at % n_channels);
    if (residual)
        r = load4(residual + at);
    for (int i = 0; i < 4; i++) {
        float y = v.x[i] + b.x[i];
        if (act == LB_ACT_RELU)
            y = y < 0.0f ? 0.0f : y; /* NaN stays */
        else if (act == LB_ACT_GELU)
            y = 0.5f * y * (1.0f + erff(y * 0.70710678118654752f));
        v.x[i] = y + r.x[i];
    }
    store4(x + at, v);
}

/* out = x + y; y repeats every n_y values. n and n_y are multiples of 4. */
template <typename T> __global__ void lb_cast_kernel(const float *x, const float *y, T *out, size_t n, size_t n_y) {
    const size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (at >= n)
        return;
    lb_four v = load4(x + at);
    if (y) {
        const lb_four w = load4(y + at % n_y);
        for (int i = 0; i < 4; i++)
            v.x[i] += w.x[i];
    }
    store4(out + at, v);
}

/* LayerNorm, a warp a row; REGISTERS * 32 >= channels. Where merge.width is not 0, a row is four tokens of x joined,
 * channels being the sum of theirs. */
template <typename T, int REGISTERS>
__global__ void lb_norm_kernel(const float *x, const float *weight, const float *bias, T *out, int channels,
                               size_t n_rows, float eps, int merge_width, int merge_height) {
    const int lane = threadIdx.x % 32;
    const size_t row = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= n_rows)
        return;
    float value[REGISTERS], sum = 0.0f;
    const int part = merge_width ? channels / 4 : channels;
    const float *chunk[4] = {x + row * channels, NULL, NULL, NULL};
    if (merge_width) {
        const size_t n = (size_t)((merge_width + 1) / 2) * ((merge_height + 1) / 2), image = row / n;
        const float *first = x + image * merge_width * merge_height * part;
        for (int i = 0; i < 4; i++) {
            const int token = lb_merged_token(merge_width, merge_height, (int)(row % n), i);
            chunk[i] = token < 0 ? NULL : first + (size_t)token * part;
        }
    }
#pragma unroll
    for (int i = 0; i < REGISTERS; i++) {
        const int c = lane + i * 32;
        value[i] = 0.0f;
        if (c < channels) {
            const int k = merge_width ? c / part : 0;
            const float *from = k == 0 ? chunk[0] : k == 1 ? chunk[1] : k == 2 ? chunk[2] : chunk[3];
            value[i] = from ? from[c - k * part] : 0.0f;
        }
        sum += value[i];
    }
    const float mean = warp_sum(sum) / channels;
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < REGISTERS; i++) {
        const float d = lane + i * 32 < channels ? value[i] - mean : 0.0f;
        value[i] = d;
        sum += d * d;
    }
    const float scale = rsqrtf(warp_sum(sum) / channels + eps);
#pragma unroll
    for (int i = 0; i < REGISTERS; i++) {
        const int c = lane + i * 32;
        if (c < channels)
            store(out + row * channels + c, value[i] * scale * weight[c] + bias[c]);
    }
}

/* Floats of shared memory of the kernel below. */
LB_BOTH int lb_windows_shared(int window, int d_head) {
    const int n = window * window, side = 2 * window - 1;
    return 2 * n * d_head + side * side + 2 * n;
}

/* Swin's attention: a block a window and head (grid: windows of all pictures, heads), a thread two queries, blockDim.x
 * apart. Keys and values lie in shared memory, a query's row and its sum in registers. The softmax goes through the keys
 * once, CHUNK at a time, rescaling what it has when a larger score comes. */
template <typename T, int D, int CHUNK>
__global__ void __launch_bounds__(128)
    lb_windows_kernel(const T *qkv, const float *qkv_bias, const float *position_bias, T *out, lb_windows windows,
                      int n_heads, float scale) {
    LB_SHARED(lb_shared);
    const int n = windows.window * windows.window, side = 2 * windows.window - 1, channels = n_heads * D;
    const int n_windows = lb_windows_across(windows) * lb_windows_down(windows);
    const int window = blockIdx.x % n_windows, head = blockIdx.y;
    const size_t first = (size_t)(blockIdx.x / n_windows) * windows.width * windows.height;
    float *const key = (float *)lb_shared, *const value = key + n * D, *const table = value + n * D;
    int *const key_offset = (int *)(table + side * side), *const region = key_offset + n;

    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        key_offset[i] = lb_window_key_offset(windows.window, i);
        region[i] = lb_window_region(windows, window, i);
    }
    /* the table of relative positions, out of the bias that was spread over all pairs: any pair of a difference */
    for (int i = threadIdx.x; i < side * side; i += blockDim.x) {
        const int dy = i / side - (windows.window - 1), dx = i % side - (windows.window - 1);
        const int q = (dy > 0 ? dy : 0) * windows.window + (dx > 0 ? dx : 0);
        const int k = (dy < 0 ? -dy : 0) * windows.window + (dx < 0 ? -dx : 0);
        table[i] = position_bias[((size_t)head * n + q) * n + k];
    }
    for (int i = threadIdx.x; i < n * (D / 4); i += blockDim.x) {
        const int place = i / (D / 4), c = i % (D / 4) * 4, token = lb_window_token(windows, window, place);
        lb_four k, v;
        if (token >= 0) {
            const T *row = qkv + (first + token) * 3 * channels + head * D + c;
            k = load4(row + channels);
            v = load4(row + 2 * channels);
        } else { /* padding is zeros before the product */
            k = load4(qkv_bias + channels + head * D + c);
            v = load4(qkv_bias + 2 * channels + head * D + c);
        }
        store4(key + place * D + c, k);
        store4(value + place * D + c, v);
    }
    __syncthreads();

    float q[2][D], sum[2][D], largest[2], total[2];
    int token[2], offset[2], at_region[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int place = threadIdx.x + r * blockDim.x;
        token[r] = place < n ? lb_window_token(windows, window, place) : -1;
        offset[r] = place < n ? lb_window_query_offset(windows.window, place) : (windows.window - 1) * side + windows.window - 1;
        at_region[r] = place < n ? lb_window_region(windows, window, place) : 0;
        largest[r] = -INFINITY;
        total[r] = 0.0f;
#pragma unroll
        for (int c = 0; c < D; c += 4) {
            lb_four v = {{0.0f, 0.0f, 0.0f, 0.0f}};
            if (token[r] >= 0)
                v = load4(qkv + (first + token[r]) * 3 * channels + head * D + c);
            for (int i = 0; i < 4; i++) {
                q[r][c + i] = v.x[i] * scale;
                sum[r][c + i] = 0.0f;
            }
        }
    }
    for (int begin = 0; begin < n; begin += CHUNK) {
        float score[2][CHUNK];
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            const int k = begin + i;
            if (n % CHUNK == 0 || k < n) {
                float a[2] = {0.0f, 0.0f};
#pragma unroll
                for (int c = 0; c < D; c += 4) {
                    const lb_four v = load4(key + k * D + c);
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        a[0] += q[0][c + j] * v.x[j];
                        a[1] += q[1][c + j] * v.x[j];
                    }
                }
#pragma unroll
                for (int r = 0; r < 2; r++)
                    score[r][i] = a[r] + table[offset[r] - key_offset[k]] - (at_region[r] != region[k] ? 100.0f : 0.0f);
            } else {
                score[0][i] = score[1][i] = -INFINITY;
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = largest[r];
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                most = score[r][i] > most ? score[r][i] : most;
            const float old = expf(largest[r] - most); /* 0 at first */
            largest[r] = most;
            total[r] *= old;
#pragma unroll
            for (int c = 0; c < D; c++)
                sum[r][c] *= old;
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                score[r][i] = expf(score[r][i] - most);
                total[r] += score[r][i];
            }
        }
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            const int k = begin + i;
            if (n % CHUNK == 0 || k < n) {
#pragma unroll
                for (int c = 0; c < D; c += 4) {
                    const lb_four v = load4(value + k * D + c);
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        sum[0][c + j] += score[0][i] * v.x[j];
                        sum[1][c + j] += score[1][i] * v.x[j];
                    }
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (token[r] < 0)
            continue;
        T *to = out + (first + token[r]) * channels + head * D;
#pragma unroll
        for (int c = 0; c < D; c += 4) {
            lb_four v;
            for (int i = 0; i < 4; i++)
                v.x[i] = sum[r][c + i] / total[r];
            store4(to + c, v);
        }
    }
}

/* What the sampling kernel needs to know, by value. */
typedef struct lb_sample_shape {
    int n_queries, n_images, n_tokens; /* queries a picture; tokens of all levels */
    int n_heads, d_head, n_points, n_levels;
    int n_places; /* rows of origin and scale: queries, of one picture or of all */
    lb_sample_level level[LB_OP_LEVELS_MAX];
} lb_sample_shape;

/* Deformable attention: a thread sums V channels of a query's head over all samples; the threads of a head and the
 * heads of a query follow each other. */
template <typename T, int V>
__global__ void lb_sample_kernel(const T *value, const float *offsets, const float *logits, const float *origin_x,
                                 const float *origin_y, const float *scale_x, const float *scale_y, const float *keep,
                                 T *out, const __grid_constant__ lb_sample_shape s) {
    const int parts = s.d_head / V, d = s.n_heads * s.d_head, n = s.n_levels * s.n_points;
    const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const size_t query = at / ((size_t)parts * s.n_heads);
    if (query >= (size_t)s.n_queries * s.n_images)
        return;
    const int head = (int)(at / parts % s.n_heads), channel = head * s.d_head + (int)(at % parts) * V;
    const size_t image = query / s.n_queries, place = query % s.n_places * s.n_levels;
    const T *from = value + image * s.n_tokens * d + channel;
    const float *kept = keep ? keep + image * s.n_tokens : NULL;
    logits += (query * s.n_heads + head) * n;
    offsets += (query * s.n_heads + head) * n * 2;
    float largest = -INFINITY, total = 0.0f, sum[V];
    for (int i = 0; i < n; i++)
        largest = logits[i] > largest ? logits[i] : largest;
#pragma unroll
    for (int c = 0; c < V; c++)
        sum[c] = 0.0f;
    for (int l = 0; l < s.n_levels; l++) {
        const lb_sample_level level = s.level[l];
        const float ox = origin_x[place + l], oy = origin_y[place + l];
        const float sx = scale_x ? scale_x[place + l] : 1.0f, sy = scale_y ? scale_y[place + l] : 1.0f;
        const T *first = from + (size_t)level.start * d;
        for (int p = 0; p < s.n_points; p++) {
            const int i = l * s.n_points + p;
            const float e = expf(logits[i] - largest);
            const lb_corners corners = lb_sample_corners(level.width, level.height, offsets[2 * i] * sx + ox,
                                                         offsets[2 * i + 1] * sy + oy, e);
            total += e;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float w = corners.weight[k] * (kept ? kept[level.start + corners.at[k]] : 1.0f);
                if (w == 0.0f)
                    continue;
                const T *row = first + (size_t)corners.at[k] * d;
#pragma unroll
                for (int c = 0; c < V; c += 4) {
                    const lb_four v = load4(row + c);
                    for (int j = 0; j < 4; j++)
                        sum[c + j] += w * v.x[j];
                }
            }
        }
    }
#pragma unroll
    for (int c = 0; c < V; c += 4) {
        lb_four v;
        for (int j = 0; j < 4; j++)
            v.x[j] = sum[c + j] / total;
        store4(out + query * d + channel + c, v);
    }
}

/* 8-bit pixels to rows of patches, normalised by a table, zeros beyond each picture's size. width, height: of the
 * padded pictures. */
template <typename T>
__global__ void lb_patches_kernel(const unsigned char *bytes, const float *table, const int *sizes, T *out, int width,
                                  int height, int patch, size_t n) {
    const size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n)
        return;
    const int row = 3 * patch * patch, across = width / patch, down = height / patch;
    const int i = (int)(at % row), c = i / (patch * patch);
    const size_t token = at / row, image = token / ((size_t)across * down);
    const int in_image = (int)(token % ((size_t)across * down));
    const int x = in_image % across * patch + i % patch, y = in_image / across * patch + i / patch % patch;
    float v = 0.0f;
    if (x < sizes[2 * image] && y < sizes[2 * image + 1])
        v = table[c * 256 + bytes[((image * height + y) * width + x) * 3 + c]];
    store(out + at, v);
}

#endif
