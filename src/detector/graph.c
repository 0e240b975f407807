#include "detector/model_internal.h"

#include "base/error.h"
#include "detector/cuda.h"

#include <stdlib.h>
#include <string.h>

/* Nodes: each encoder layer has levels * points * 4 gathers with their weighted sums where sampling is done by them. */
enum { N_NODES = 1 << 15, N_CONSTANTS = 1 << 9 };

struct lb_gdino_constant {
    struct ggml_tensor *tensor;
    void *values;
};

lb_status lb_gdino_graph_begin(lb_gdino_graph *g, lb_error *error) {
    g->ctx = ggml_init((struct ggml_init_params){
        .mem_size = N_NODES * ggml_tensor_overhead() + ggml_graph_overhead_custom(N_NODES, false), .no_alloc = true});
    g->constant_ctx =
        ggml_init((struct ggml_init_params){.mem_size = N_CONSTANTS * ggml_tensor_overhead(), .no_alloc = true});
    g->constants = calloc(N_CONSTANTS, sizeof *g->constants);
    if (!g->ctx || !g->constant_ctx || !g->constants)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detector's graph");
    g->graph = ggml_new_graph_custom(g->ctx, N_NODES, false);
    return LB_STATUS_OK;
}

void lb_gdino_graph_end(lb_gdino_graph *g) {
    for (int i = 0; g->constants && i < g->n_constants; i++)
        free(g->constants[i].values);
    free(g->constants);
    for (int i = 0; g->ops && i < g->n_ops; i++)
        lb_cuda_release(&g->ops[i]);
    free(g->ops);
    g->ops = NULL;
    ggml_free(g->constant_ctx);
    ggml_free(g->ctx);
    g->constants = NULL;
    g->constant_ctx = g->ctx = NULL;
}

struct ggml_tensor *lb_gdino_constant(lb_gdino_graph *g, enum ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2,
                                      int64_t ne3, void *values) {
    if (!values || g->n_constants == N_CONSTANTS) {
        g->failed = true;
        free(values);
        /* a shape to build on; the graph is not run */
        return ggml_new_tensor_4d(g->ctx, type, ne0, ne1, ne2, ne3);
    }
    struct ggml_tensor *t = ggml_new_tensor_4d(g->constant_ctx, type, ne0, ne1, ne2, ne3);
    g->constants[g->n_constants++] = (struct lb_gdino_constant){t, values};
    return t;
}

lb_status lb_gdino_graph_constants(lb_gdino_graph *g, ggml_backend_t backend, ggml_backend_buffer_t *buffer,
                                   lb_error *error) {
    *buffer = NULL;
    if (g->failed)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detector's constants");
    if (g->n_constants == 0)
        return LB_STATUS_OK;
    *buffer = ggml_backend_alloc_ctx_tensors(g->constant_ctx, backend);
    if (!*buffer)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no room for the detector's constants on %s",
                            ggml_backend_name(backend));
    for (int i = 0; i < g->n_constants; i++) {
        struct lb_gdino_constant *constant = &g->constants[i];
        ggml_backend_tensor_set(constant->tensor, constant->values, 0, ggml_nbytes(constant->tensor));
        free(constant->values);
        constant->values = NULL;
    }
    return LB_STATUS_OK;
}

void lb_gdino_pretend(struct ggml_context *ctx) {
    for (struct ggml_tensor *t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t))
        t->data = t; /* any address: what a graph allocator looks at */
}

lb_status lb_gdino_graph_measure(lb_gdino_graph *g, const lb_device *device, size_t *bytes, lb_error *error) {
    ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device->handle);
    *bytes = 0;
    if (g->failed)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detector's constants");
    ggml_gallocr_t allocator = ggml_gallocr_new(type);
    if (!allocator)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detector's graph");
    const size_t constants = ggml_backend_alloc_ctx_tensors_from_buft_size(g->constant_ctx, type);
    lb_gdino_pretend(g->constant_ctx);
    ggml_gallocr_reserve_n_size(allocator, g->graph, NULL, NULL, bytes);
    *bytes += constants;
    ggml_gallocr_free(allocator);
    return LB_STATUS_OK;
}

struct ggml_tensor *lb_gdino_input(lb_gdino_graph *g, const char *name, enum ggml_type type, int64_t ne0, int64_t ne1,
                                   int64_t ne2) {
    struct ggml_tensor *t = ggml_new_tensor_3d(g->ctx, type, ne0, ne1, ne2);
    ggml_set_name(t, name);
    ggml_set_input(t);
    return t;
}

struct ggml_tensor *lb_gdino_mark(lb_gdino_graph *g, struct ggml_tensor *t, const char *format, int i) {
    ggml_format_name(t, format, i);
    if (g->watch) {
        ggml_set_output(t);
        ggml_build_forward_expand(g->graph, t);
    }
    return t;
}
