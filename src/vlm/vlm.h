/* The narrow door to an engine that runs the vision-language model. Behind it today: the ggml encoder and libllama.
 *
 * In: 8-bit tiles and token ids, on the host. Out: opaque handles of embeddings and of an evaluated prefix, rows of
 * logits, tokens. Tokenizer, template, letters and batching stand outside. No ggml or llama type passes.
 *
 *     lb_vlm *vlm;
 *     lb_vlm_open(&params, &vlm, &error);
 *     lb_embeddings *pictures;
 *     lb_vlm_encode(vlm, &tiles, &pictures, &error);              // once a video
 *     lb_vlm_reserve(vlm, n_prefix + n_questions * (n_suffix + n_new), &error);
 *     lb_vlm_prefix(vlm, tokens, n_prefix, pictures, &error);             // once a video
 *     lb_vlm_answer(vlm, asks, n_questions, pictures, replies, &error);   // all its questions in one batch
 *
 * A token sequence is int32: an id of the vocabulary, or LB_TOKEN_VISUAL, which stands for the next row of the video's
 * embeddings.
 */
#ifndef LB_VLM_VLM_H
#define LB_VLM_VLM_H

#include "memory/ledger.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LB_TOKEN_VISUAL = -1 };

typedef struct lb_vlm lb_vlm;
typedef struct lb_embeddings lb_embeddings;

/* How the model lies on the devices: what a memory plan decides. All zero: everything on the first device, all the
 * time, the KV cache as large as the videos ask for. */
typedef struct lb_vlm_layout {
    int n_cells;              /* of the KV cache, never more; made once. 0: grows with the videos */
    bool kv_q8;               /* q8_0 keys and values: half the memory, other answers now and then */
    bool rest_vision_compute; /* the encoder's activations and pool are on the device while it encodes, only */
    bool rest_vision_weights; /* so are its weights, which else wait in pinned host memory */
    bool rest_context;        /* KV cache and activations of the language model are gone while it does not work */
    int n_host_layers;        /* of the first layers the weights stay in pinned host memory and cross at each use */
    int weight_bits;          /* 8 or 4: what a file quantized so would take; for measuring alone. 0: as the file is */
    int vision_device;        /* place of the device that the encoder works on */
    int n_devices;            /* that the language model is spread over; 0: the first alone */
    int n_layers_on[LB_DEVICES_MAX]; /* layers on each; the output counts as one, behind the last. All 0: first alone */
} lb_vlm_layout;

typedef struct lb_vlm_params {
    const char *model_path;  /* language model, GGUF (the first file of a split one) */
    const char *mmproj_path; /* vision encoder and projector, GGUF */
    const char *device;      /* "auto" (default), "cpu", "cuda0", "cuda0,cuda1" */
    int n_threads;           /* CPU work; 0: one a core */
    bool exact;              /* f32 KV cache and attention instead of f16 and flash attention; default false */
    int tile_batch;          /* most tiles in one graph; 0: chosen */
    int n_ubatch;            /* most tokens in one evaluation; default 512 */
    int n_parallel;          /* most questions in one batch; default 8 */
    lb_vlm_layout layout;    /* what is where, and when; default: all on the first device, always */
} lb_vlm_params;

lb_vlm_params lb_vlm_default_params(void);

typedef struct lb_vlm_info {
    int image_size; /* pixels a side of a tile */
    int tokens_per_tile;
    int n_embd, n_vocab;
    int n_ctx_train; /* positions that the model was made for: the longest prompt with its answer */
    int n_parallel;
    int largest_tile_batch;
    char device[64], device_description[128];
    char architecture[64];
} lb_vlm_info;

/* What the engine stands on, as a run's journal names it: "llama.cpp 0.5.0, ggml 0.25.3 (commit)". */
const char *lb_vlm_library(void);

/* Loads both parts. Errors, each one line that names the file: NOT_FOUND, FORMAT (not GGUF, truncated), UNSUPPORTED
 * (another architecture, an encoder of another kind, embedding sizes that do not belong together), OUT_OF_MEMORY,
 * BACKEND. Memory on the device: the weights but for the token embeddings, which stay in the mapped file; the encoder's
 * activations; see lb_vlm_reserve for the rest. */
lb_status lb_vlm_open(const lb_vlm_params *params, lb_vlm **vlm, lb_error *error);
const lb_vlm_info *lb_vlm_get_info(const lb_vlm *vlm);
void lb_vlm_free(lb_vlm *vlm);

/* Bytes on all devices now: what the ledger holds, and what lb_device_reserved_bytes says. */
void lb_vlm_memory(const lb_vlm *vlm, size_t *allocated, size_t *reserved);

/* Before something else needs the device (the detector): gives up what the layout says may rest. */
void lb_vlm_rest(lb_vlm *vlm);

/* Tiles where they lie: a frame's own in one place, crops in another, and some of them still being cut. */
typedef struct lb_tile_list {
    const uint8_t *const *tile; /* [n] each [image_size][image_size][3] */
    int n;
    /* Called once a tile, in order, before it is read; returns when it can be. NULL: all can. */
    lb_status (*wait)(int i, void *user, lb_error *error);
    void *user;
} lb_tile_list;

/* The rows lie in pinned host memory. Errors: BACKEND, NOT_FINITE, OUT_OF_MEMORY, those of tiles->wait. */
lb_status lb_vlm_encode(lb_vlm *vlm, const lb_tile_list *tiles, lb_embeddings **embeddings, lb_error *error);

/* The same of rows that were encoded before and lie somewhere else; they must outlive it. Errors: OUT_OF_MEMORY. */
lb_status lb_vlm_borrow(lb_vlm *vlm, const float *rows, int64_t n_rows, lb_embeddings **embeddings, lb_error *error);

/* Its memory is freed with it, not kept for the next video: for what a cache counts. */
void lb_embeddings_own(lb_embeddings *embeddings);
size_t lb_embeddings_bytes(const lb_embeddings *embeddings);
void lb_vlm_release_spare(lb_vlm *vlm); /* gives back what is kept for the next video */
int64_t lb_embeddings_n_rows(const lb_embeddings *embeddings);
const float *lb_embeddings_rows(const lb_embeddings *embeddings); /* [n_rows][n_embd], good until it is freed */
void lb_embeddings_free(lb_embeddings *embeddings); /* before lb_vlm_free; its memory serves the next video */

/* Makes room for n_cells tokens in the KV cache; what was evaluated is forgotten when it has to grow.
 * Errors: OUT_OF_MEMORY. Memory: n_cells * n_layer * (k + v) bytes, and activations for one n_ubatch. */
lb_status lb_vlm_reserve(lb_vlm *vlm, int n_cells, lb_error *error);

/* Evaluates tokens as the prefix that the answers to come share, in place of the former one; does nothing when both are
 * the same tokens of the same pictures. n 0 forgets it. pictures NULL: text alone.
 * Errors: DOES_NOT_FIT (above what was reserved), BACKEND. */
lb_status lb_vlm_prefix(lb_vlm *vlm, const int32_t *tokens, int n, const lb_embeddings *pictures, lb_error *error);

typedef struct lb_vlm_ask {
    const int32_t *tokens; /* [n_tokens] the whole prompt; it begins with the prefix, which is not evaluated again */
    int n_tokens;          /* longer than the prefix */
    int n_new_max;         /* most tokens to generate; 0: only the logits of the first */
    double until_s;        /* of lb_now_s: after it no token is begun but the first; 0: no limit */
} lb_vlm_ask;

typedef struct lb_vlm_reply {
    int32_t *token; /* [n_tokens] generated, without the stop token; caller frees */
    int n_tokens;
    float *logits; /* [n_vocab] at the first answer token; caller frees */
    bool stopped;  /* by a stop token (else by n_new_max, or cut) */
    bool cut;      /* by until_s */
} lb_vlm_reply;

/* Greedy: the token of the highest logit, the lower id winning. stop: [n_stop] ids that end an answer. All asks go in
 * batches of at most n_parallel together. Errors: DOES_NOT_FIT, BACKEND, NOT_FINITE (logits; the prefix is forgotten),
 * OUT_OF_MEMORY; replies are freed and zero then. */
lb_status lb_vlm_answer(lb_vlm *vlm, const lb_vlm_ask *asks, int n_asks, const lb_embeddings *pictures,
                        const int32_t *stop, int n_stop, lb_vlm_reply *replies, double *prompt_s, double *generate_s,
                        lb_error *error);
void lb_vlm_reply_free(lb_vlm_reply *reply);

#endif
