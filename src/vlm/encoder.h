/* InternViT and its projector on ggml: tiles in, embeddings for the language model out.
 *
 * Takes: the mmproj GGUF that llama.cpp users have; 8-bit RGB tiles. Gives: per tile n_tokens rows of n_out floats.
 *
 *     lb_encoder *encoder;
 *     lb_encoder_open("mmproj.gguf", &params, &encoder, &error);
 *     lb_encoder_run(encoder, &tiles, rows, &error);      // rows: [tiles.n * n_tokens][n_out]
 *     lb_encoder_free(encoder);
 *
 * Source: transformers 5, models/internvl/modeling_internvl.py (InternVLVisionModel, InternVLMultiModalProjector) and
 * OpenGVLab's modeling_intern_vit.py. Class token first, with position 0; GELU with erf; no norm after the last layer.
 */
#ifndef LB_VLM_ENCODER_H
#define LB_VLM_ENCODER_H

#include "lowbeam/status.h"
#include "nn/device.h"
#include "vlm/vlm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lb_encoder lb_encoder;

typedef struct lb_encoder_hparams {
    int image_size; /* pixels a side of a tile */
    int patch_size; /* pixels a side of a patch */
    int n_embd, n_ff, n_layer, n_head;
    int scale_factor; /* pixel shuffle: scale_factor^2 patches make one token */
    int n_out;        /* the language model's embedding size */
    int n_tokens;     /* tokens a tile: (image_size / patch_size / scale_factor)^2 */
    float eps;        /* of the layers' LayerNorm; the projector's is 1e-5 (PyTorch's default) */
    float mean[3], std[3];
} lb_encoder_hparams;

typedef struct lb_encoder_params {
    lb_device device;
    int n_threads;  /* CPU backend; 0: as many as there are cores */
    int tile_batch; /* most tiles in one graph; 0: 4 on a GPU, 1 on the CPU. Halved while memory is short. */
    bool exact;     /* plain f32 attention instead of flash attention */
} lb_encoder_params;

/* Reads and checks the header alone. Errors: FORMAT, UNSUPPORTED (a file of another kind, by its name; InternViT-6B).
 */
lb_status lb_encoder_read_hparams(const char *path, lb_encoder_hparams *hparams, lb_error *error);

/* Memory on the device: the weights, and per tile of a batch about
 * 4 bytes * n_patches * (9 n_embd + n_ff) (28 MiB for InternViT-300M). Errors: as above, OUT_OF_MEMORY. */
lb_status lb_encoder_open(const char *path, const lb_encoder_params *params, lb_encoder **encoder, lb_error *error);

const lb_encoder_hparams *lb_encoder_get_hparams(const lb_encoder *encoder);
int lb_encoder_tile_batch(const lb_encoder *encoder); /* tiles in one graph, as memory allowed */

/* out: [tiles->n][n_tokens][n_out] (n_out fastest), best in pinned memory (lb_pinned_alloc). Errors: BACKEND,
 * NOT_FINITE (names the tile), those of tiles->wait. */
lb_status lb_encoder_run(lb_encoder *encoder, const lb_tile_list *tiles, float *out, lb_error *error);

/* Host memory that the device copies from and to at full speed; plain memory where there is no such thing.
 * Entered into the ledger under component. */
typedef struct lb_pinned {
    void *data;
    size_t bytes;
    void *buffer; /* ggml_backend_buffer_t */
    int component;
} lb_pinned;
lb_status lb_pinned_alloc(const lb_device *device, size_t bytes, int component, lb_pinned *pinned, lb_error *error);
void lb_pinned_free(lb_pinned *pinned);

void lb_encoder_free(lb_encoder *encoder);

#endif
