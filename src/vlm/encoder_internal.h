/* Shared by the encoder's files: the weights as the file names them, and the graph over them. */
#ifndef LB_VLM_ENCODER_INTERNAL_H
#define LB_VLM_ENCODER_INTERNAL_H

#include "nn/weights.h"
#include "vlm/encoder.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>

enum {
    LB_ENCODER_LAYERS_MAX = 128,
    LB_ENCODER_NODES_MAX = 64 + 40 * LB_ENCODER_LAYERS_MAX /* of a graph; a layer takes up to 35 */
};

typedef struct lb_encoder_layer {
    struct ggml_tensor *ln1_w, *ln1_b, *ln2_w, *ln2_b; /* ne = [n_embd] */
    struct ggml_tensor *qkv_w, *qkv_b;                 /* ne = [n_embd, 3 n_embd], [3 n_embd] */
    struct ggml_tensor *out_w, *out_b;                 /* ne = [n_embd, n_embd] */
    struct ggml_tensor *ls1, *ls2;                     /* layer scale, ne = [n_embd] */
    struct ggml_tensor *up_w, *up_b, *down_w, *down_b; /* ne = [n_embd, n_ff], [n_ff, n_embd] */
} lb_encoder_layer;

typedef struct lb_encoder_model {
    lb_encoder_hparams hparams;
    struct ggml_tensor *pixel_scale, *pixel_shift; /* ne = [3 patch_size]: normalisation, per channel, repeated */
    struct ggml_tensor *patch_w, *patch_b;         /* ne = [3 patch^2 (channel fastest, then x, y), n_embd] f32 */
    struct ggml_tensor *class_embd;                /* ne = [n_embd] */
    struct ggml_tensor *position_embd;             /* ne = [n_embd, 1 + n_patches] */
    lb_encoder_layer layer[LB_ENCODER_LAYERS_MAX];
    struct ggml_tensor *mm_norm_w, *mm_norm_b;             /* ne = [s^2 n_embd] */
    struct ggml_tensor *mm_1_w, *mm_1_b, *mm_3_w, *mm_3_b; /* ne = [s^2 n_embd, n_out], [n_out, n_out] */
    lb_weights *weights;
} lb_encoder_model;

/* Declares all weights of an opened file, to be loaded by lb_weights_load or lb_weights_load_host. The caller frees
 * model->weights, also after a failure. */
lb_status lb_encoder_model_declare(const lb_gguf *file, lb_encoder_model *model, lb_error *error);
lb_status lb_encoder_hparams_read(const lb_gguf *file, lb_encoder_hparams *hparams, lb_error *error);

/* Blocks of q8_0 that hold the 8-bit pixels of n_tiles tiles, see lb_encoder_graph. */
int64_t lb_encoder_pixel_blocks(const lb_encoder_hparams *hparams, int n_tiles);

/* Builds the graph for n_tiles. Input "pixels": q8_0, ne = [32 * lb_encoder_pixel_blocks], each block's scale 1 and its
 * values pixel - 128 (a type that every backend widens to f32: the bytes cross to the device as bytes). on_cpu:
 * functions of ours may stand in it, and keys are padded to what ggml's CPU products like. Output "embeddings": f32, ne
 * = [n_out, n_tokens, n_tiles]. */
struct ggml_cgraph *lb_encoder_graph(const lb_encoder_model *model, struct ggml_context *ctx, int n_tiles,
                                     bool flash_attention, bool on_cpu);

#endif
