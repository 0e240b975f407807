#include "vlm/encoder.h"

#include "base/error.h"
#include "base/log.h"
#include "nn/backend.h"
#include "nn/log.h"
#include "vlm/encoder_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_STAGES = 2 }; /* pixels of the next batch are packed while the device works on this one */

struct lb_encoder {
    lb_encoder_model model;
    lb_device device;
    ggml_backend_t backend;
    ggml_gallocr_t allocator;
    size_t compute_bytes; /* as entered into the ledger */
    bool flash;
    int tile_batch, n_threads;
    bool rest_compute, rest_weights;
    lb_pinned stage[N_STAGES];
    struct ggml_context *graph_ctx; /* of the graph that is allocated now */
    struct ggml_cgraph *graph;
    int graph_tiles;
};

lb_status lb_encoder_read_hparams(const char *path, lb_encoder_hparams *hparams, lb_error *error) {
    lb_gguf *file;
    *hparams = (lb_encoder_hparams){0};
    lb_status status = lb_gguf_open(path, &file, error);
    if (status == LB_STATUS_OK)
        status = lb_encoder_hparams_read(file, hparams, error);
    lb_gguf_close(file);
    return status;
}

const lb_encoder_hparams *lb_encoder_get_hparams(const lb_encoder *encoder) {
    return &encoder->model.hparams;
}

int lb_encoder_tile_batch(const lb_encoder *encoder) {
    return encoder->tile_batch;
}

static struct ggml_context *graph_context(void) {
    return ggml_init((struct ggml_init_params){.mem_size = LB_ENCODER_NODES_MAX * ggml_tensor_overhead() +
                                                           ggml_graph_overhead_custom(LB_ENCODER_NODES_MAX, false),
                                               .no_alloc = true});
}

static void drop_compute(lb_encoder *encoder) {
    ggml_free(encoder->graph_ctx);
    encoder->graph_ctx = NULL;
    encoder->graph = NULL;
    if (encoder->allocator)
        ggml_gallocr_free(encoder->allocator);
    encoder->allocator = NULL;
    lb_ledger_sub_on(encoder->device.place, LB_COMPONENT_VISION_COMPUTE, encoder->compute_bytes);
    encoder->compute_bytes = 0;
}

/* Makes the graph for n_tiles the current one. OUT_OF_MEMORY: there is none, and nothing on the device. */
static lb_status use_graph(lb_encoder *encoder, int n_tiles, lb_error *error) {
    if (encoder->graph && encoder->graph_tiles == n_tiles)
        return LB_STATUS_OK;
    ggml_free(encoder->graph_ctx);
    encoder->graph = NULL;
    encoder->graph_ctx = graph_context();
    if (!encoder->allocator)
        encoder->allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(encoder->backend));
    if (!encoder->graph_ctx || !encoder->allocator)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the vision encoder's graph");
    struct ggml_cgraph *graph =
        lb_encoder_graph(&encoder->model, encoder->graph_ctx, n_tiles, encoder->flash, encoder->device.is_cpu);
    if (!ggml_gallocr_alloc_graph(encoder->allocator, graph)) {
        /* An allocator that failed must go: it has noted the places of this graph, and would give a smaller one places
         * in a buffer that is not there. */
        drop_compute(encoder);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no room on %s for the activations of %d tiles",
                            encoder->device.name, n_tiles);
    }
    encoder->graph = graph;
    encoder->graph_tiles = n_tiles;
    size_t bytes = ggml_gallocr_get_buffer_size(encoder->allocator, 0);
    lb_ledger_sub_on(encoder->device.place, LB_COMPONENT_VISION_COMPUTE, encoder->compute_bytes);
    lb_ledger_add_on(encoder->device.place, LB_COMPONENT_VISION_COMPUTE, bytes);
    encoder->compute_bytes = bytes;
    return LB_STATUS_OK;
}

static bool graph_is_supported(const lb_encoder_model *model, const lb_device *device, bool flash) {
    struct ggml_context *ctx = graph_context();
    if (!ctx)
        return false;
    struct ggml_cgraph *graph = lb_encoder_graph(model, ctx, 1, flash, device->is_cpu);
    bool supported = true;
    for (int i = 0; i < ggml_graph_n_nodes(graph) && supported; i++)
        supported = ggml_backend_dev_supports_op(device->handle, ggml_graph_node(graph, i));
    ggml_free(ctx);
    return supported;
}

/* On the CPU plain attention is both exact and, with ggml's kernels, as fast (docs/speed.md); a GPU's flash attention
 * has kernels for some head sizes only. */
static lb_status choose_attention(const char *path, const lb_encoder_model *model, const lb_encoder_params *params,
                                  bool *flash, lb_error *error) {
    *flash = !params->exact && !params->device.is_cpu && graph_is_supported(model, &params->device, true);
    if (!*flash && !graph_is_supported(model, &params->device, false))
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: %s lacks an operation that the encoder needs", path,
                            params->device.name);
    return LB_STATUS_OK;
}

static size_t tile_bytes(const lb_encoder *encoder) {
    const size_t side = (size_t)encoder->model.hparams.image_size;
    return side * side * 3;
}

/* 8-bit pixels as q8_0 blocks of scale 1 (f16 0x3C00): value = pixel - 128. A tile may end inside a block, where the
 * next one goes on; the last block is filled with zeros. */
static void pack_tiles(const uint8_t *const *tile, int n_tiles, size_t bytes, uint8_t *blocks) {
    size_t used = 0; /* of the block's 32 pixels */
    for (int t = 0; t < n_tiles; t++) {
        const uint8_t *pixels = tile[t];
        for (size_t left = bytes; left > 0;) {
            size_t m = left < 32 - used ? left : 32 - used;
            for (size_t k = 0; k < m; k++)
                blocks[2 + used + k] = pixels[k] ^ 0x80;
            pixels += m;
            left -= m;
            used += m;
            if (used == 32 || (left == 0 && t + 1 == n_tiles)) {
                blocks[0] = 0x00;
                blocks[1] = 0x3C;
                memset(blocks + 2 + used, 0, 32 - used);
                blocks += 34;
                used = 0;
            }
        }
    }
}

static lb_status check_finite(const float *rows, int first, int n_tiles, size_t per_tile, lb_error *error) {
    for (int t = first; t < first + n_tiles; t++) {
        float sum = 0; /* a value times zero is zero or, when it is not finite, NaN: one branch a tile */
        for (size_t i = 0; i < per_tile; i++)
            sum += rows[(size_t)t * per_tile + i] * 0.0f;
        if (!(sum == 0.0f))
            return lb_error_set(error, LB_STATUS_NOT_FINITE, "vision encoder: the embedding of tile %d is not finite",
                                t);
    }
    return LB_STATUS_OK;
}

/* Queues one batch: pixels to the device, the graph, embeddings back. */
static lb_status queue(lb_encoder *encoder, const lb_pinned *stage, int n, float *out, lb_error *error) {
    lb_status status = use_graph(encoder, n, error);
    if (status != LB_STATUS_OK)
        return status;
    struct ggml_tensor *pixels = ggml_graph_get_tensor(encoder->graph, "pixels");
    struct ggml_tensor *rows = ggml_graph_get_tensor(encoder->graph, "embeddings");
    ggml_backend_tensor_set_async(encoder->backend, pixels, stage->data, 0, ggml_nbytes(pixels));
    if (ggml_backend_graph_compute_async(encoder->backend, encoder->graph) != GGML_STATUS_SUCCESS)
        return lb_error_set(error, LB_STATUS_BACKEND, "vision encoder: %s failed: %s", encoder->device.name,
                            lb_nn_last_log_error());
    if (out)
        ggml_backend_tensor_get_async(encoder->backend, rows, out, 0, ggml_nbytes(rows));
    return LB_STATUS_OK;
}

static lb_status warm_up(lb_encoder *encoder, lb_error *error) {
    uint8_t *black = calloc(1, tile_bytes(encoder));
    if (!black)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a tile");
    const uint8_t *tile[encoder->tile_batch];
    for (int i = 0; i < encoder->tile_batch; i++)
        tile[i] = black;
    pack_tiles(tile, encoder->tile_batch, tile_bytes(encoder), encoder->stage[0].data);
    free(black);
    lb_status status = queue(encoder, &encoder->stage[0], encoder->tile_batch, NULL, error);
    ggml_backend_synchronize(encoder->backend);
    return status;
}

lb_status lb_encoder_measure(const char *path, const lb_encoder_params *params, int tile_batch, lb_encoder_sizes *sizes,
                             lb_error *error) {
    *sizes = (lb_encoder_sizes){0};
    lb_gguf *file = NULL;
    lb_encoder_model *model = calloc(1, sizeof *model);
    struct ggml_context *ctx = graph_context();
    bool flash = false;
    lb_status status =
        model && ctx ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    if (status == LB_STATUS_OK)
        status = lb_gguf_open(path, &file, error);
    if (status == LB_STATUS_OK)
        status = lb_encoder_model_declare(file, model, error);
    if (status == LB_STATUS_OK)
        status = choose_attention(path, model, params, &flash, error);
    if (status == LB_STATUS_OK) {
        sizes->weight_bytes = lb_weights_measure(model->weights, &params->device);
        lb_weights_pretend(model->weights);
        ggml_gallocr_t allocator = ggml_gallocr_new(ggml_backend_dev_buffer_type(params->device.handle));
        if (allocator)
            ggml_gallocr_reserve_n_size(allocator,
                                        lb_encoder_graph(model, ctx, tile_batch, flash, params->device.is_cpu), NULL,
                                        NULL, &sizes->compute_bytes);
        else
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the graph", path);
        ggml_gallocr_free(allocator);
    }
    ggml_free(ctx);
    lb_gguf_close(file);
    if (model)
        lb_weights_free(model->weights);
    free(model);
    return status;
}

/* Everything on the device that a run needs. Does nothing when it is there. */
static lb_status rise(lb_encoder *encoder, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    if (!encoder->backend)
        status = lb_backend_open(&encoder->device, encoder->n_threads, &encoder->backend, error);
    if (status == LB_STATUS_OK && encoder->rest_weights)
        status = lb_weights_bring(encoder->model.weights, encoder->backend, error);
    while (status == LB_STATUS_OK && (status = use_graph(encoder, encoder->tile_batch, error)) != LB_STATUS_OK) {
        if (status != LB_STATUS_OUT_OF_MEMORY || encoder->tile_batch == 1)
            return status;
        encoder->tile_batch /= 2;
        status = LB_STATUS_OK;
    }
    return status;
}

void lb_encoder_rest(lb_encoder *encoder) {
    if (encoder->rest_compute || encoder->rest_weights)
        drop_compute(encoder); /* its graph knows where the weights lay */
    if (encoder->rest_weights)
        lb_weights_leave(encoder->model.weights);
    if (encoder->rest_compute && encoder->backend) {
        ggml_backend_free(encoder->backend);
        encoder->backend = NULL;
    }
}

lb_status lb_encoder_open(const char *path, const lb_encoder_params *params, lb_encoder **out, lb_error *error) {
    *out = NULL;
    lb_gguf *file = NULL;
    lb_encoder *encoder = calloc(1, sizeof *encoder);
    lb_status status = encoder ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    if (status == LB_STATUS_OK)
        status = lb_gguf_open(path, &file, error);
    if (status != LB_STATUS_OK)
        goto cleanup;
    encoder->device = params->device;
    encoder->n_threads = params->n_threads;
    encoder->rest_compute = params->rest_compute;
    encoder->rest_weights = params->rest_weights;
    encoder->tile_batch = params->tile_batch > 0 ? params->tile_batch : params->device.is_cpu ? 1 : 4;
    status = lb_backend_open(&encoder->device, encoder->n_threads, &encoder->backend, error);
    if (status == LB_STATUS_OK)
        status = lb_encoder_model_declare(file, &encoder->model, error);
    if (status == LB_STATUS_OK)
        status = choose_attention(path, &encoder->model, params, &encoder->flash, error);
    if (status == LB_STATUS_OK)
        status =
            encoder->rest_weights
                ? lb_weights_load_host(encoder->model.weights, &encoder->device, LB_COMPONENT_VISION_WEIGHTS, error)
                : lb_weights_load(encoder->model.weights, encoder->backend, LB_COMPONENT_VISION_WEIGHTS, error);
    if (status == LB_STATUS_OK)
        status = rise(encoder, error);
    const size_t block = ggml_type_size(GGML_TYPE_Q8_0);
    for (int i = 0; i < N_STAGES && status == LB_STATUS_OK; i++)
        status = lb_pinned_alloc(&encoder->device,
                                 block * (size_t)lb_encoder_pixel_blocks(&encoder->model.hparams, encoder->tile_batch),
                                 LB_COMPONENT_FRAMES, &encoder->stage[i], error);
    /* pools and workspaces grow with the first batch: better now, where it can be reported, than at the first video */
    if (status == LB_STATUS_OK && !params->device.is_cpu)
        status = warm_up(encoder, error);
    if (status == LB_STATUS_OK)
        lb_encoder_rest(encoder);
cleanup:
    lb_gguf_close(file);
    if (status != LB_STATUS_OK)
        lb_encoder_free(encoder);
    else
        *out = encoder;
    return status;
}

void lb_encoder_free(lb_encoder *encoder) {
    if (!encoder)
        return;
    for (int i = 0; i < N_STAGES; i++)
        lb_pinned_free(&encoder->stage[i]);
    drop_compute(encoder);
    lb_weights_free(encoder->model.weights);
    if (encoder->backend)
        ggml_backend_free(encoder->backend);
    free(encoder);
}

static lb_status wait_for(const lb_tile_list *tiles, int first, int n, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    for (int i = first; i < first + n && tiles->wait && status == LB_STATUS_OK; i++)
        status = tiles->wait(i, tiles->user, error);
    return status;
}

/* On one stream everything happens in the order in which it was queued. While the device works on a batch, this thread
 * packs the next one's pixels and looks through the last one's embeddings. */
lb_status lb_encoder_run(lb_encoder *encoder, const lb_tile_list *tiles, float *out, lb_error *error) {
    const int n_tiles = tiles->n;
    const size_t per_tile = (size_t)encoder->model.hparams.n_tokens * (size_t)encoder->model.hparams.n_out;
    lb_status status = rise(encoder, error);
    int checked = 0, done = 0;
    for (int batch = 0; done < n_tiles && status == LB_STATUS_OK; batch++) {
        int n = n_tiles - done < encoder->tile_batch ? n_tiles - done : encoder->tile_batch;
        lb_pinned *stage = &encoder->stage[batch % N_STAGES];
        status = wait_for(tiles, done, n, error);
        if (status != LB_STATUS_OK)
            break;
        pack_tiles(tiles->tile + done, n, tile_bytes(encoder), stage->data);
        ggml_backend_synchronize(encoder->backend); /* the last batch: its embeddings are there, its graph is free */
        status = queue(encoder, stage, n, out + (size_t)done * per_tile, error);
        if (status == LB_STATUS_OK)
            status = check_finite(out, checked, done - checked, per_tile, error);
        checked = done;
        done += n;
    }
    if (encoder->backend)
        ggml_backend_synchronize(encoder->backend);
    return status == LB_STATUS_OK ? check_finite(out, checked, n_tiles - checked, per_tile, error) : status;
}
