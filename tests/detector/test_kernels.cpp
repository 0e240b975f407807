/* The detector's CUDA kernels, run on the CPU thread by thread (cuda_on_cpu.h), against the CPU's own functions or sums
 * in double precision. What differs on a card is the order of f32 sums, and cuBLAS. */
#include "cuda_on_cpu.h"

#include "detector/cuda_kernels.cuh"

static int n_failed;

/* Largest difference relative to the largest value; limit: f32 sums in another order, or f16's half a unit. */
static void verdict(const char *what, const std::vector<float> &ours, const std::vector<float> &expected, double limit) {
    double largest = 0.0, difference = 0.0;
    size_t at = 0;
    bool finite = ours.size() == expected.size() && !ours.empty();
    for (size_t i = 0; finite && i < ours.size(); i++) {
        finite = std::isfinite(ours[i]);
        const double d = std::fabs((double)ours[i] - (double)expected[i]);
        largest = std::fmax(largest, std::fabs((double)expected[i]));
        if (d > difference)
            difference = d, at = i;
    }
    const bool good = finite && difference <= limit * largest;
    printf("%s %s: %.2e, limit %.0e%s", good ? "ok  " : "FAIL", what, difference / largest, limit,
           finite ? "" : ", not finite");
    if (!good && finite)
        printf(", at %zu: %g, expected %g", at, ours[at], expected[at]);
    printf("\n");
    n_failed += !good;
}

static uint32_t state = 1;

static std::vector<float> noise(size_t n, float size) {
    std::vector<float> v(n);
    for (float &x : v) {
        state = state * 1664525u + 1013904223u;
        x = size * ((float)(state >> 8) / (float)(1 << 23) - 1.0f);
    }
    return v;
}

template <typename T> static std::vector<T> as(const std::vector<float> &v);
template <> std::vector<float> as(const std::vector<float> &v) {
    return v;
}
template <> std::vector<__half> as(const std::vector<float> &v) {
    std::vector<__half> out;
    for (float x : v)
        out.push_back(__float2half_rn(x));
    return out;
}

template <typename T> static std::vector<float> floats(const std::vector<T> &v) {
    std::vector<float> out;
    for (T x : v)
        out.push_back(to_float(x));
    return out;
}

template <typename T> static const char *name_of(void) {
    return sizeof(T) == 2 ? "f16" : "f32";
}

template <typename T> static double limit(void) {
    return sizeof(T) == 2 ? 1e-3 : 1e-5;
}

static ggml_tensor tensor(std::vector<float> &v, int64_t a, int64_t b, int64_t c, int64_t d) {
    ggml_tensor t = {};
    t.data = v.data();
    t.ne[0] = a, t.ne[1] = b, t.ne[2] = c, t.ne[3] = d;
    return t;
}

template <typename T, int D, int CHUNK> static void test_windows(int window, int shift, int width, int height) {
    const int n_heads = 2, n_images = 2, n = window * window, channels = n_heads * D;
    const size_t rows = (size_t)(width * height * n_images);
    lb_op op = {};
    op.windows = {width, height, window, shift};
    op.n_heads = n_heads;
    op.scale = 0.3f;
    std::vector<T> qkv = as<T>(noise(rows * 3 * channels, 2.0f)), out(rows * channels);
    std::vector<float> wide = floats(qkv), bias = noise(3 * channels, 1.0f), position(n_heads * n * n), expected(rows * channels);
    const int side = 2 * window - 1;
    const std::vector<float> table = noise(n_heads * side * side, 1.0f);
    for (int h = 0; h < n_heads; h++)
        for (int q = 0; q < n; q++)
            for (int k = 0; k < n; k++)
                position[(h * n + q) * n + k] = table[h * side * side + (q / window - k / window + window - 1) * side +
                                                      q % window - k % window + window - 1];
    ggml_tensor a = tensor(wide, 3 * channels, width * height, n_images, 1), b = tensor(bias, 3 * channels, 1, 1, 1),
                c = tensor(position, n, n, n_heads, 1), d = tensor(expected, channels, width * height, n_images, 1);
    op.src[0] = &a, op.src[1] = &b, op.src[2] = &c, op.node = &d;
    lb_op_windows_cpu(&d, 0, 1, &op);
    const unsigned threads = ((n + 1) / 2 + 31) / 32 * 32;
    const dim3 grid = {(unsigned)(lb_windows_across(op.windows) * lb_windows_down(op.windows) * n_images), n_heads, 1};
    if (lb_windows_shared(window, D) * sizeof(float) > sizeof cuda_on_cpu::shared_memory)
        abort();
    cuda_on_cpu::launch(grid, threads, [&] {
        lb_windows_kernel<T, D, CHUNK>(qkv.data(), bias.data(), position.data(), out.data(), op.windows, n_heads, op.scale);
    });
    char what[128];
    snprintf(what, sizeof what, "windows %s d_head %d window %d shift %d map %dx%d", name_of<T>(), D, window, shift, width, height);
    verdict(what, floats(out), expected, limit<T>());
}

template <typename T, int V> static void test_sample(int n_heads, int d_head, bool decoder, bool padded) {
    const int n_images = 2, n_points = 3, n_queries = 37, d = n_heads * d_head;
    lb_op op = {};
    op.n_heads = n_heads, op.n_points = n_points, op.n_levels = 2;
    op.level[0] = {7, 5, 0};
    op.level[1] = {4, 3, 35};
    const int n_tokens = 47, n_samples = n_points * op.n_levels, n_places = n_queries * (padded || decoder ? n_images : 1);
    std::vector<T> value = as<T>(noise((size_t)n_tokens * n_images * d, 2.0f)), out((size_t)n_queries * n_images * d);
    std::vector<float> wide = floats(value), offsets = noise((size_t)n_queries * n_images * n_heads * n_samples * 2, 3.0f),
                       logits = noise((size_t)n_queries * n_images * n_heads * n_samples, 3.0f), keep = noise(n_tokens * n_images, 1.0f),
                       place[4], expected(out.size());
    for (float &k : keep)
        k = k > 0.0f ? 1.0f : 0.0f;
    for (int i = 0; i < 4; i++) {
        place[i] = noise((size_t)n_places * op.n_levels, 2.0f);
        for (float &x : place[i])
            x += i < 2 ? 2.5f : 0.0f;
    }
    offsets[5] = 1e30f; /* far outside, and no index */
    ggml_tensor v = tensor(wide, d, n_tokens, n_images, 1), o = tensor(offsets, 2 * n_heads * n_samples, n_queries, n_images, 1),
                w = tensor(logits, n_heads * n_samples, n_queries, n_images, 1), k = tensor(keep, 1, n_tokens, n_images, 1),
                node = tensor(expected, d, n_queries, n_images, 1), p[4];
    for (int i = 0; i < 4; i++)
        p[i] = tensor(place[i], 1, op.n_levels, 1, n_places);
    op.src[LB_SAMPLE_VALUE] = &v, op.src[LB_SAMPLE_OFFSETS] = &o, op.src[LB_SAMPLE_WEIGHTS] = &w;
    op.src[LB_SAMPLE_ORIGIN_X] = &p[0], op.src[LB_SAMPLE_ORIGIN_Y] = &p[1];
    op.src[LB_SAMPLE_KEEP] = padded ? &k : NULL;
    op.src[LB_SAMPLE_SCALE_X] = decoder ? &p[2] : NULL, op.src[LB_SAMPLE_SCALE_Y] = decoder ? &p[3] : NULL;
    op.node = &node;
    lb_op_sample_cpu(&node, 0, 1, &op);
    lb_sample_shape s = {};
    s.n_queries = n_queries, s.n_images = n_images, s.n_tokens = n_tokens, s.n_heads = n_heads, s.d_head = d_head;
    s.n_points = n_points, s.n_levels = op.n_levels, s.n_places = n_places;
    s.level[0] = op.level[0], s.level[1] = op.level[1];
    cuda_on_cpu::launch({(unsigned)((out.size() / V + 127) / 128), 1, 1}, 128, [&] {
        lb_sample_kernel<T, V>(value.data(), offsets.data(), logits.data(), place[0].data(), place[1].data(),
                               decoder ? place[2].data() : NULL, decoder ? place[3].data() : NULL, padded ? keep.data() : NULL,
                               out.data(), s);
    });
    char what[128];
    snprintf(what, sizeof what, "samples %s %d heads of %d, by %d%s%s", name_of<T>(), n_heads, d_head, V,
             decoder ? ", decoder's" : "", padded ? ", padded" : "");
    verdict(what, floats(out), expected, limit<T>());
}

template <typename T, int REGISTERS> static void test_norm(int channels, int width, int height) {
    const bool merge = width > 0;
    const int n_images = 2, across = (width + 1) / 2, down = (height + 1) / 2;
    const size_t rows = merge ? (size_t)(across * down * n_images) : 13;
    const int part = merge ? channels / 4 : channels;
    const std::vector<float> x = noise(merge ? (size_t)width * height * n_images * part : rows * channels, 3.0f),
                             weight = noise(channels, 1.0f), bias = noise(channels, 1.0f);
    std::vector<T> out(rows * channels);
    std::vector<float> expected(out.size());
    for (size_t r = 0; r < rows; r++) {
        std::vector<double> row(channels);
        double mean = 0.0, square = 0.0;
        for (int c = 0; c < channels; c++) {
            row[c] = x[(merge ? 0 : r * channels) + (merge ? 0 : c)];
            if (merge) { /* of a column first the upper, then the lower neighbour */
                const int at = (int)(r % ((size_t)across * down)), k = c / part;
                const int px = at % across * 2 + k / 2, py = at / across * 2 + k % 2;
                const size_t image = r / ((size_t)across * down);
                row[c] = px < width && py < height ? x[((image * height + py) * width + px) * part + c % part] : 0.0;
            }
            mean += row[c] / channels;
        }
        for (double v : row)
            square += (v - mean) * (v - mean) / channels;
        for (int c = 0; c < channels; c++)
            expected[r * channels + c] = (float)((row[c] - mean) / std::sqrt(square + 1e-5) * weight[c] + bias[c]);
    }
    cuda_on_cpu::launch({(unsigned)((rows + 7) / 8), 1, 1}, 256, [&] {
        lb_norm_kernel<T, REGISTERS>(x.data(), weight.data(), bias.data(), out.data(), channels, rows, 1e-5f, width, height);
    });
    char what[128];
    snprintf(what, sizeof what, "norm %s of %d channels%s", name_of<T>(), channels, merge ? ", four tokens joined" : "");
    verdict(what, floats(out), expected, limit<T>());
}

template <typename T> static void test_elementwise(void) {
    const int channels = 12;
    const size_t n = channels * 50;
    const std::vector<float> bias = noise(channels, 1.0f), residual = noise(n, 1.0f), x = noise(n, 3.0f), y = noise(n / 2, 1.0f);
    for (int act = LB_ACT_NONE; act <= LB_ACT_GELU; act++) {
        std::vector<T> out = as<T>(x);
        std::vector<float> expected = floats(out);
        for (size_t i = 0; i < n; i++) {
            const double v = (double)expected[i] + (double)bias[i % channels];
            expected[i] = (float)((act == LB_ACT_RELU ? std::fmax(v, 0.0) : act == LB_ACT_GELU ? v * 0.5 * (1.0 + std::erf(v / std::sqrt(2.0))) : v) +
                                  (double)residual[i]);
        }
        cuda_on_cpu::launch({2, 1, 1}, 96, [&] { lb_finish_kernel<T>(out.data(), bias.data(), residual.data(), channels, n, act); });
        verdict(act == LB_ACT_RELU ? "bias, relu, residual" : act == LB_ACT_GELU ? "bias, gelu, residual" : "bias, residual", floats(out),
                expected, limit<T>());
    }
    std::vector<T> out(n);
    std::vector<float> expected(n);
    for (size_t i = 0; i < n; i++)
        expected[i] = x[i] + y[i % (n / 2)];
    cuda_on_cpu::launch({2, 1, 1}, 96, [&] { lb_cast_kernel<T>(x.data(), y.data(), out.data(), n, n / 2); });
    verdict("cast of a sum", floats(out), expected, limit<T>());

    const int width = 12, height = 8, patch = 4, sizes[4] = {11, 8, 12, 5};
    std::vector<unsigned char> bytes(width * height * 3 * 2);
    const std::vector<float> table = noise(3 * 256, 2.0f);
    for (size_t i = 0; i < bytes.size(); i++)
        bytes[i] = (unsigned char)(i * 37 + i / 7);
    std::vector<T> rows(width * height * 3 * 2);
    expected.assign(rows.size(), 0.0f);
    for (int image = 0; image < 2; image++)
        for (int py = 0; py < sizes[2 * image + 1]; py++)
            for (int px = 0; px < sizes[2 * image]; px++)
                for (int c = 0; c < 3; c++)
                    expected[((image * 6 + py / patch * 3 + px / patch) * 3 + c) * patch * patch + py % patch * patch + px % patch] =
                        table[c * 256 + bytes[((image * height + py) * width + px) * 3 + c]];
    cuda_on_cpu::launch({18, 1, 1}, 32, [&] { lb_patches_kernel<T>(bytes.data(), table.data(), sizes, rows.data(), width, height, patch, rows.size()); });
    verdict("patches", floats(rows), expected, limit<T>());
}

template <typename T> static void test_all(void) {
    test_windows<T, 32, 7>(7, 0, 10, 9);
    test_windows<T, 32, 7>(7, 3, 10, 9);
    test_windows<T, 32, 7>(7, 3, 14, 7);
    test_windows<T, 32, 7>(7, 3, 3, 16);
    test_windows<T, 32, 8>(12, 6, 13, 11);
    test_windows<T, 12, 8>(5, 2, 6, 12);
    test_windows<T, 16, 8>(7, 3, 9, 9);
    test_windows<T, 24, 8>(5, 2, 4, 5);
    for (int i = 0; i < 4; i++) {
        test_sample<T, 8>(2, 32, i % 2, i / 2);
        test_sample<T, 4>(3, 12, i % 2, i / 2);
        test_sample<T, 8>(4, 8, i % 2, i / 2);
    }
    test_norm<T, 4>(96, 0, 0);
    test_norm<T, 8>(256, 0, 0);
    test_norm<T, 12>(384, 7, 4);
    test_norm<T, 24>(768, 6, 5);
    test_norm<T, 48>(1536, 0, 0);
    test_elementwise<T>();
}

int main() {
    test_all<float>();
    test_all<__half>();
    printf("%d failed\n", n_failed);
    return n_failed != 0;
}
