/* Shared by the detector's files: sizes, weights under the checkpoint's names, and the parts of the graph in the order
 * in which the data passes them. One file a part; each mirrors its class in transformers 5.23,
 * models/grounding_dino/modeling_grounding_dino.py (Swin: models/swin/modeling_swin.py, BERT: models/bert).
 *
 * In the shapes: B images of a batch, T text tokens, S vision tokens (all levels, one after the other), Q queries,
 * L levels, P points, H heads, d = d_model.
 */
#ifndef LB_DETECTOR_MODEL_INTERNAL_H
#define LB_DETECTOR_MODEL_INTERNAL_H

#include "detector/ops.h"
#include "nn/weights.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <stdbool.h>

enum {
    LB_GDINO_LAYERS_MAX = 64, /* of each stack, and blocks of a Swin stage */
    LB_GDINO_STAGES_MAX = 6,
    LB_GDINO_LEVELS_MAX = 8,
    LB_GDINO_MLP_MAX = 3,
};

typedef struct lb_swin_hparams {
    int embed_dim, window_size, patch_size;
    int n_stages, depths[LB_GDINO_STAGES_MAX], num_heads[LB_GDINO_STAGES_MAX];
    int n_out, out_indices[LB_GDINO_STAGES_MAX]; /* stage i, from 1, gives a feature map; ascending */
    float mlp_ratio, layer_norm_eps;
} lb_swin_hparams;

typedef struct lb_bert_hparams {
    int hidden_size, num_hidden_layers, num_attention_heads, intermediate_size;
    int vocab_size, max_position_embeddings, type_vocab_size;
    float layer_norm_eps;
} lb_bert_hparams;

/* The names are those of config.json. */
typedef struct lb_gdino_hparams {
    int d_model, num_queries, num_feature_levels, max_text_len;
    int encoder_layers, encoder_ffn_dim, encoder_attention_heads, encoder_n_points;
    int decoder_layers, decoder_ffn_dim, decoder_attention_heads, decoder_n_points;
    float positional_embedding_temperature, layer_norm_eps;
    bool decoder_bbox_embed_share;
    bool exact; /* f16 weights become f32 when they are declared, and no product is in tf32 */
    lb_swin_hparams swin;
    lb_bert_hparams bert;
    float mean[3], std[3]; /* of pixels / 255 */
} lb_gdino_hparams;

typedef struct lb_linear {
    struct ggml_tensor *w; /* ne = [in, out]  (torch: [out, in]) */
    struct ggml_tensor *b; /* ne = [out]; NULL: none */
} lb_linear;

typedef struct lb_norm {
    struct ggml_tensor *w, *b; /* ne = [channels] */
} lb_norm;

typedef struct lb_mlp_head { /* GroundingDinoMLPPredictionHead: ReLU between the layers */
    int n;
    lb_linear layer[LB_GDINO_MLP_MAX];
} lb_mlp_head;

typedef struct lb_attention { /* GroundingDinoMultiheadAttention */
    lb_linear query, key, value, out;
} lb_attention;

typedef struct lb_deformable {   /* GroundingDinoMultiscaleDeformableAttention */
    lb_linear sampling_offsets;  /* out = 2 P L H: x and y fastest, then points, levels, heads */
    lb_linear attention_weights; /* out = P L H */
    lb_linear value, out;
    int n_heads, n_points;
} lb_deformable;

typedef struct lb_bert_layer {
    lb_linear qkv, out, up, down; /* qkv: query, key and value stacked */
    lb_norm attention_norm, output_norm;
} lb_bert_layer;

typedef struct lb_bert {
    struct ggml_tensor *word;            /* ne = [hidden, vocab] */
    struct ggml_tensor *position, *type; /* ne = [hidden, positions], [hidden, token types]; type 0 alone is used */
    lb_norm norm;
    lb_bert_layer layer[LB_GDINO_LAYERS_MAX];
    lb_linear projection; /* hidden -> d */
    lb_weights *weights;  /* of their own: they leave the device once the text features are there */
} lb_bert;

typedef struct lb_swin_block {
    lb_norm before, after;
    lb_linear qkv, out, up, down;
    struct ggml_tensor *bias; /* relative position bias, ne = [window^2 (key), window^2 (query), heads] */
} lb_swin_block;

typedef struct lb_swin_stage {
    lb_swin_block block[LB_GDINO_LAYERS_MAX];
    lb_norm merge_norm;  /* all stages but the last */
    lb_linear reduction; /* ne = [4 C, 2 C], no bias */
    lb_norm out_norm;    /* where the stage's map leaves the backbone */
} lb_swin_stage;

typedef struct lb_gdino_encoder_layer {
    lb_norm fusion_vision_norm, fusion_text_norm;
    lb_linear vision_proj, text_proj, values_vision_proj, values_text_proj, out_vision_proj, out_text_proj;
    struct ggml_tensor *vision_param, *text_param; /* ne = [d] */
    lb_attention text_attn;
    lb_linear text_fc1, text_fc2;
    lb_norm text_norm_before, text_norm_after;
    lb_deformable self_attn;
    lb_norm self_attn_norm, final_norm;
    lb_linear fc1, fc2;
} lb_gdino_encoder_layer;

typedef struct lb_gdino_decoder_layer {
    lb_attention self_attn, text_attn;
    lb_deformable cross_attn;
    lb_norm self_attn_norm, text_attn_norm, cross_attn_norm, final_norm;
    lb_linear fc1, fc2;
} lb_gdino_decoder_layer;

typedef struct lb_gdino_model {
    lb_gdino_hparams hparams;
    lb_bert bert;
    lb_linear patch; /* ne = [3 patch^2 (x fastest, then y, channel), embed_dim] */
    lb_norm patch_norm;
    lb_swin_stage stage[LB_GDINO_STAGES_MAX];
    struct ggml_tensor *proj_w[LB_GDINO_LEVELS_MAX]; /* ne = [k, k, channels, d]: k 1 for a map of Swin's, else 3 */
    struct ggml_tensor *proj_b[LB_GDINO_LEVELS_MAX]; /* ne = [d] */
    lb_norm proj_norm[LB_GDINO_LEVELS_MAX];          /* GroupNorm of 32 groups */
    struct ggml_tensor *level_embed;                 /* ne = [d, L] */
    lb_gdino_encoder_layer encoder[LB_GDINO_LAYERS_MAX];
    lb_linear enc_output;
    lb_norm enc_output_norm;
    lb_mlp_head enc_bbox;
    struct ggml_tensor *query_embed; /* ne = [d, Q] */
    lb_gdino_decoder_layer decoder[LB_GDINO_LAYERS_MAX];
    lb_norm decoder_norm;
    lb_mlp_head reference_points_head;
    lb_mlp_head bbox[LB_GDINO_LAYERS_MAX]; /* the same tensors in each layer when they are shared */
    lb_weights *weights;
} lb_gdino_model;

/* load.c. Errors: FORMAT, naming file and key or tensor; UNSUPPORTED; OUT_OF_MEMORY. */
lb_status lb_gdino_read_hparams(const lb_gguf *file, lb_gdino_hparams *hparams, lb_error *error);
/* All weights but the text encoder's, or those alone, to be loaded by nn/weights.h's calls. */
lb_status lb_gdino_declare(const lb_gguf *file, lb_gdino_model *model, lb_error *error);
lb_status lb_gdino_declare_bert(const lb_gguf *file, lb_gdino_model *model, lb_error *error);

/* What the host computes for a batch of one shape, uploaded once: geometry.c. */
typedef struct lb_gdino_level {
    int width, height;
    int start; /* first token of the level */
} lb_gdino_level;

typedef struct lb_gdino_geometry {
    int n, width, height; /* images, and the size in pixels to which all are padded */
    const int *size;      /* [n][2]: width and height of each image within; owned by the caller while planning */
    bool padded;          /* some image is smaller than the batch */
    int n_levels, n_tokens;
    lb_gdino_level level[LB_GDINO_LEVELS_MAX];
    int map_width[LB_GDINO_STAGES_MAX], map_height[LB_GDINO_STAGES_MAX]; /* of each Swin stage */
} lb_gdino_geometry;

/* What the composite steps are made of. */
typedef enum lb_gdino_way {
    LB_GDINO_BY_GGML,     /* ggml's operations alone: any device */
    LB_GDINO_BY_FUNCTION, /* on the CPU, functions of ours for windows and samples */
    LB_GDINO_BY_CUDA,     /* kernels of ours, f16 between products where the weights are */
} lb_gdino_way;

/* A graph under construction with its constant inputs. */
typedef struct lb_gdino_graph {
    const lb_gdino_model *model;
    const lb_gdino_geometry *geometry; /* NULL for the text encoder */
    struct ggml_context *ctx;
    struct ggml_context *constant_ctx; /* constants live in a buffer of their own, filled once a plan */
    struct lb_gdino_constant *constants;
    int n_constants;
    struct ggml_cgraph *graph;
    int n_text; /* T */
    lb_gdino_way way;
    bool half;  /* BY_CUDA: what goes into products is f16 */
    lb_op *ops; /* in no order; they live as long as the graph */
    int n_ops;
    lb_op nowhere; /* the one that is written to when there is no memory for ops */
    bool exact;    /* no product in tf32 */
    bool watch;    /* keep the named intermediates: tests compare them */
    bool failed;   /* memory for a constant or the operations was short */
} lb_gdino_graph;

/* graph.c. Starts with nothing allocated; lb_gdino_graph_constants allocates and fills the constants. */
lb_status lb_gdino_graph_begin(lb_gdino_graph *g, lb_error *error);
lb_status lb_gdino_graph_constants(lb_gdino_graph *g, ggml_backend_t backend, ggml_backend_buffer_t *buffer,
                                   lb_error *error);
/* What constants and activations would take on the device; nothing is allocated. */
lb_status lb_gdino_graph_measure(lb_gdino_graph *g, const lb_device *device, size_t *bytes, lb_error *error);
void lb_gdino_pretend(struct ggml_context *ctx); /* its tensors count as allocated: for graphs that are measured */
void lb_gdino_graph_end(lb_gdino_graph *g);

/* A constant: values is [ne product] of 4-byte numbers from malloc, which the graph frees; NULL counts as failure, told
 * by lb_gdino_graph_constants. */
struct ggml_tensor *lb_gdino_constant(lb_gdino_graph *g, enum ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2,
                                      int64_t ne3, void *values);

/* An input that changes from run to run; found again by name. */
struct ggml_tensor *lb_gdino_input(lb_gdino_graph *g, const char *name, enum ggml_type type, int64_t ne0, int64_t ne1,
                                   int64_t ne2);

/* Names an intermediate (format takes i), kept for reading when the graph is watched. Returns t. */
struct ggml_tensor *lb_gdino_mark(lb_gdino_graph *g, struct ggml_tensor *t, const char *format, int i);

/* blocks.c. Product: as ggml_mul_mat. */
struct ggml_tensor *lb_gdino_product(lb_gdino_graph *g, struct ggml_tensor *w, struct ggml_tensor *x);
struct ggml_tensor *lb_linear_apply(lb_gdino_graph *g, const lb_linear *layer, struct ggml_tensor *x);
struct ggml_tensor *lb_norm_apply(struct ggml_context *ctx, const lb_norm *norm, struct ggml_tensor *x, float eps);
struct ggml_tensor *lb_mlp_apply(lb_gdino_graph *g, const lb_mlp_head *head, struct ggml_tensor *x);
/* query: ne = [d, nq, B]; key, value: ne = [d, nk, B]; mask: NULL or ne = [nk, nq], added. out: ne = [d, nq, B] */
struct ggml_tensor *lb_attention_apply(lb_gdino_graph *g, const lb_attention *attention, int n_heads,
                                       struct ggml_tensor *query, struct ggml_tensor *key, struct ggml_tensor *value,
                                       struct ggml_tensor *mask);
/* q, k, v: ne = [d_head, H, n, B], strided. out: ne = [d_head * H, nq, B] */
struct ggml_tensor *lb_attend(lb_gdino_graph *g, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
                              struct ggml_tensor *mask, float scale);

struct lb_sampling;
/* ops.c: an operation of ours, or ggml's that do the same. type: what the result is wanted in; BY_CUDA alone knows f16
 * (lb_gdino_act_type). Results have no axis 3. */
enum ggml_type lb_gdino_act_type(const lb_gdino_graph *g);
/* act(w x + b) + residual */
struct ggml_tensor *lb_gdino_linear(lb_gdino_graph *g, const lb_linear *layer, struct ggml_tensor *x, lb_act act,
                                    struct ggml_tensor *residual, enum ggml_type type);
struct ggml_tensor *lb_gdino_norm(lb_gdino_graph *g, const lb_norm *norm, struct ggml_tensor *x, float eps,
                                  enum ggml_type type);
/* x, or x + y, as products take it; y: NULL or with fewer pictures than x, then repeated */
struct ggml_tensor *lb_gdino_cast(lb_gdino_graph *g, struct ggml_tensor *x, struct ggml_tensor *y);
/* BY_CUDA alone: four neighbours joined and normalised, see swin.c */
struct ggml_tensor *lb_gdino_merge_norm(lb_gdino_graph *g, const lb_norm *norm, struct ggml_tensor *x, int width,
                                        int height, float eps);
/* Whether the two below can be used. */
bool lb_gdino_windows_fit(const lb_gdino_graph *g, int64_t d_head);
bool lb_gdino_sample_fits(const lb_gdino_graph *g, int64_t d_head);
/* qkv: ne = [3 C, width * height, B]; out: ne = [C, width * height, B] */
struct ggml_tensor *lb_gdino_windows(lb_gdino_graph *g, const lb_swin_block *block, struct ggml_tensor *qkv,
                                     int n_heads, lb_windows windows);
struct ggml_tensor *lb_gdino_sample(lb_gdino_graph *g, const lb_deformable *layer, struct ggml_tensor *value,
                                    struct ggml_tensor *offsets, struct ggml_tensor *weights, struct ggml_tensor *keep,
                                    const struct lb_sampling *sampling);
/* BY_CUDA alone. bytes: I8, ne = [3 width, height, B]; table: f32, ne = [256, 3]; sizes: I32, ne = [2, B].
 * out: ne = [3 patch^2 (x fastest, then y, channel), patches, B] */
struct ggml_tensor *lb_gdino_patches(lb_gdino_graph *g, struct ggml_tensor *bytes, struct ggml_tensor *table,
                                     struct ggml_tensor *sizes, int patch);

/* text_encoder.c. mask [n][n]: 1 where token i sees token j; position [n]: restarted at each phrase. special: ids of
 * [CLS], [SEP], '.' and '?'. */
void lb_gdino_phrases(const int32_t *tokens, int n, const int32_t special[4], uint8_t *mask, int32_t *position);
/* Input "tokens" (I32, ne = [T]); output "text", ne = [d, T]. */
struct ggml_tensor *lb_gdino_text_graph(lb_gdino_graph *g, const uint8_t *mask, const int32_t *position);

/* geometry.c. Errors: INVALID_ARGUMENT (too small for num_queries, too large). */
lb_status lb_gdino_geometry_make(const lb_gdino_hparams *hparams, const int *size, int n, lb_gdino_geometry *geometry,
                                 lb_error *error);
/* Columns (axis 0) or rows (axis 1) of level that belong to image i, the rest is padding. */
int lb_gdino_valid(const lb_gdino_geometry *geometry, int level, int image, int axis);
/* Pictures of the batch that places are computed for: one where all have the same size. */
int lb_gdino_n_kinds(const lb_gdino_geometry *geometry);

/* swin.c. pixels: f32, ne = [width, height, 3, B], normalised, padded with zeros to whole patches; or, BY_CUDA, the
 * patches of lb_gdino_patches. map[i]: ne = [C, width * height, B] of the i-th out index, normalised. */
void lb_swin(lb_gdino_graph *g, struct ggml_tensor *pixels, struct ggml_tensor *map[LB_GDINO_STAGES_MAX]);

/* fusion.c. vision: ne = [d, S, B], text: ne = [d, T, B]; both replaced by the encoder's output. */
typedef struct lb_gdino_text_constants {
    struct ggml_tensor *mask;     /* ne = [T, T]: 0 or -inf */
    struct ggml_tensor *position; /* ne = [d, T]: sine embeddings of the restarted positions */
} lb_gdino_text_constants;
struct ggml_tensor *lb_gdino_project(lb_gdino_graph *g, struct ggml_tensor *const map[LB_GDINO_STAGES_MAX]);
void lb_gdino_encode(lb_gdino_graph *g, const lb_gdino_text_constants *text_constants, struct ggml_tensor **vision,
                     struct ggml_tensor **text);

/* deformable.c. query: ne = [d, n, B], position embeddings added; memory: ne = [d, S, B]; keep: NULL or ne = [1, S, B],
 * 0 at padding. origin, scale: ne = [1, L, 1, n * B] or broadcastable; a sample lies at origin + scale * offset in
 * pixels of its level, the middle of the first pixel being 0. scale NULL: 1. query and memory in what
 * lb_gdino_cast gives, or f32. out: ne = [d, n, B], residual added */
typedef struct lb_sampling {
    struct ggml_tensor *origin[2], *scale[2]; /* x, y */
} lb_sampling;
struct ggml_tensor *lb_deformable_apply(lb_gdino_graph *g, const lb_deformable *layer, struct ggml_tensor *query,
                                        struct ggml_tensor *memory, struct ggml_tensor *keep,
                                        struct ggml_tensor *residual, const lb_sampling *sampling);
struct ggml_tensor *lb_gdino_keep_mask(lb_gdino_graph *g);

/* query_select.c. Graph: memory ne = [d, S, B], text ne = [d, T, B] -> scores ne = [S, B], the largest class logit. */
struct ggml_tensor *lb_gdino_scores(lb_gdino_graph *g, struct ggml_tensor *memory, struct ggml_tensor *text);
/* Host: the Q best of scores [S], best first, of equals the earlier. Errors: NOT_FINITE, OUT_OF_MEMORY. */
lb_status lb_gdino_top(const float *scores, int n, int n_queries, int32_t *index, lb_error *error);
/* Host: what the decoder needs of the chosen tokens: proposals [Q][4] as logits (inf where there is none), keep [Q]. */
void lb_gdino_proposals(const lb_gdino_geometry *geometry, int image, const int32_t *index, int n_queries,
                        float *proposals, float *keep);
/* Graph: memory, inputs index (I32, ne = [Q, B]), proposals (ne = [4, Q, B]), keep (ne = [1, Q, B]).
 * out: reference points, ne = [4, Q, B], cxcywh in 0..1 */
struct ggml_tensor *lb_gdino_selected_boxes(lb_gdino_graph *g, struct ggml_tensor *memory);

/* decoder.c. reference: ne = [4, Q, B]. Outputs "logits", ne = [T, Q, B], and "boxes", ne = [4, Q, B]. */
void lb_gdino_decode(lb_gdino_graph *g, struct ggml_tensor *memory, struct ggml_tensor *text,
                     struct ggml_tensor *reference);

/* heads.c. hidden: ne = [d, Q, B], normalised by the decoder's norm. */
struct ggml_tensor *lb_gdino_class_logits(lb_gdino_graph *g, struct ggml_tensor *hidden, struct ggml_tensor *text);
/* sigmoid(head(hidden) + logit(reference)), the reference clamped to 1e-5 .. 1 - 1e-5 */
struct ggml_tensor *lb_gdino_refine(lb_gdino_graph *g, const lb_mlp_head *head, struct ggml_tensor *hidden,
                                    struct ggml_tensor *reference);

#endif
