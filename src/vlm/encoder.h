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
#include "nn/pinned.h"
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
    /* What lb_encoder_rest gives back to the device, to be taken again by the next run: */
    bool rest_compute; /* activations, and the backend with its pool and workspaces */
    bool rest_weights; /* weights, which then wait in pinned host memory */
} lb_encoder_params;

/* Reads and checks the header alone. Errors: FORMAT, UNSUPPORTED (a file of another kind, by its name; InternViT-6B).
 */
lb_status lb_encoder_read_hparams(const char *path, lb_encoder_hparams *hparams, lb_error *error);

/* What lb_encoder_open and a run will take on the device, from the header and graphs that are built but not allocated.
 * compute_bytes: of tile_batch tiles at once. */
typedef struct lb_encoder_sizes {
    size_t weight_bytes, compute_bytes;
} lb_encoder_sizes;
lb_status lb_encoder_measure(const char *path, const lb_encoder_params *params, int tile_batch, lb_encoder_sizes *sizes,
                             lb_error *error);

/* Memory on the device: the weights, and per tile of a batch about
 * 4 bytes * n_patches * (9 n_embd + n_ff) (28 MiB for InternViT-300M). Errors: as above, OUT_OF_MEMORY. */
lb_status lb_encoder_open(const char *path, const lb_encoder_params *params, lb_encoder **encoder, lb_error *error);

const lb_encoder_hparams *lb_encoder_get_hparams(const lb_encoder *encoder);
int lb_encoder_tile_batch(const lb_encoder *encoder); /* tiles in one graph, as memory allowed */

/* out: [tiles->n][n_tokens][n_out] (n_out fastest), best in pinned memory (nn/pinned.h). Errors: BACKEND,
 * NOT_FINITE (names the tile), those of tiles->wait. */
lb_status lb_encoder_run(lb_encoder *encoder, const lb_tile_list *tiles, float *out, lb_error *error);

/* Between the videos: gives back what params say. Nothing is lost: the next run takes it again. */
void lb_encoder_rest(lb_encoder *encoder);

void lb_encoder_free(lb_encoder *encoder);

#endif
