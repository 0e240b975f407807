/* Times the vision encoder's graph for a batch of black tiles, whole and each node alone, by operation and shape: where
 * an encoder's time goes.
 *
 *     bench_encoder MMPROJ.gguf [--device NAME] [--batch N] [--rounds N] [--exact] */
#include "base/error.h"
#include "base/time.h"
#include "nn/backend.h"
#include "vlm/encoder_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_ROWS = 256 };

typedef struct row {
    char what[160];
    double seconds;
    int n;
} row;

static int by_time(const void *a, const void *b) {
    const double x = ((const row *)a)->seconds, y = ((const row *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double run(ggml_backend_t backend, struct ggml_cgraph *graph, int rounds) {
    double best = 1e9;
    for (int i = 0; i < rounds; i++) {
        const double start = lb_now_s();
        if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS)
            exit(1);
        const double taken = lb_now_s() - start;
        best = taken < best ? taken : best;
    }
    return best;
}

static void describe(const struct ggml_tensor *node, char *line, size_t n) {
    const struct ggml_tensor *a = node->src[0];
    snprintf(line, n, "%-14s %s [%lld %lld %lld %lld] of %s [%lld %lld %lld %lld]", ggml_op_desc(node),
             ggml_type_name(node->type), (long long)node->ne[0], (long long)node->ne[1], (long long)node->ne[2],
             (long long)node->ne[3], a ? ggml_type_name(a->type) : "", a ? (long long)a->ne[0] : 0,
             a ? (long long)a->ne[1] : 0, a ? (long long)a->ne[2] : 0, a ? (long long)a->ne[3] : 0);
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "", *name = "auto";
    int n_tiles = 4, rounds = 5;
    bool exact = false;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--exact") == 0)
            exact = true;
        else if (i + 1 < argc && strcmp(argv[i], "--device") == 0)
            name = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--batch") == 0)
            n_tiles = atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--rounds") == 0)
            rounds = atoi(argv[++i]);
    }
    lb_error error = {0};
    lb_device device;
    ggml_backend_t backend = NULL;
    lb_gguf *file = NULL;
    static lb_encoder_model model;
    if (lb_device_find(name, &device, &error) != LB_STATUS_OK ||
        lb_backend_open(&device, 0, &backend, &error) != LB_STATUS_OK ||
        lb_gguf_open(path, &file, &error) != LB_STATUS_OK ||
        lb_encoder_model_declare(file, &model, &error) != LB_STATUS_OK ||
        lb_weights_load(model.weights, backend, LB_COMPONENT_VISION_WEIGHTS, &error) != LB_STATUS_OK) {
        fprintf(stderr, "bench_encoder: %s\n", error.message);
        return 1;
    }
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = (size_t)2 << 24, .no_alloc = true});
    struct ggml_cgraph *graph = lb_encoder_graph(&model, ctx, n_tiles, !exact && !device.is_cpu, device.is_cpu);
    /* nothing is reused: a node that is run again must not find its inputs overwritten by its output */
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_get_default_buffer_type(backend));
    if (!buffer)
        return 1;
    ggml_backend_buffer_clear(buffer, 0);
    const double whole = run(backend, graph, rounds);
    static row rows[N_ROWS];
    int n_rows = 0;
    double sum = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_VIEW || node->op == GGML_OP_PERMUTE || node->op == GGML_OP_RESHAPE)
            continue;
        struct ggml_context *small = ggml_init(
            (struct ggml_init_params){.mem_size = ggml_graph_overhead_custom(8, false) + 1024, .no_alloc = true});
        struct ggml_cgraph *alone = ggml_new_graph_custom(small, 8, false);
        ggml_graph_add_node(alone, node);
        const double taken = run(backend, alone, rounds);
        ggml_free(small);
        char what[160];
        describe(node, what, sizeof what);
        int at = 0;
        while (at < n_rows && strcmp(rows[at].what, what) != 0)
            at++;
        if (at == N_ROWS)
            continue;
        snprintf(rows[at].what, sizeof rows[at].what, "%s", what);
        n_rows = at == n_rows ? at + 1 : n_rows;
        rows[at].seconds += taken;
        rows[at].n++;
        sum += taken;
    }
    printf("batch=%d whole_ms=%.3f nodes_alone_ms=%.3f\n", n_tiles, whole * 1e3, sum * 1e3);
    qsort(rows, (size_t)n_rows, sizeof *rows, by_time);
    for (int i = 0; i < n_rows; i++)
        printf("%8.3f ms %4d x %7.4f  %s\n", rows[i].seconds * 1e3, rows[i].n, rows[i].seconds * 1e3 / rows[i].n,
               rows[i].what);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    lb_weights_free(model.weights);
    lb_gguf_close(file);
    ggml_backend_free(backend);
    return 0;
}
