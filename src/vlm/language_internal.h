/* Shared by the language model's files: the loaded model and the batch that is being filled. */
#ifndef LB_VLM_LANGUAGE_INTERNAL_H
#define LB_VLM_LANGUAGE_INTERNAL_H

#include "nn/gguf_file.h"
#include "vlm/language.h"
#include "vlm/llama_log.h"

#include <llama.h>

struct lb_language {
    lb_vlm_params params;
    lb_device device[LB_DEVICES_MAX];
    int n_devices;
    struct llama_model *model;
    const struct llama_vocab *vocab;
    struct llama_context *ctx;
    char architecture[64];
    int n_embd, n_vocab, n_cells;
    lb_llama_sizes sizes[LB_DEVICES_MAX + 1]; /* of the weights; of the context when there is one; last: the host's */
    lb_gguf *file;                            /* mapped: rows of the token embeddings are read from it */
    lb_gguf_tensor token_embd;                /* ne = [n_embd, n_vocab] */

    int32_t *prefix; /* evaluated as sequence 0 */
    int n_prefix;
    int64_t n_prefix_rows; /* rows of the embeddings in it */
    uint64_t prefix_pictures;

    /* One llama_decode's input, [n_ubatch]. Text goes in as rows too: text and pictures then share full batches, where
     * tokens and embeddings would need a call, and a pass over all weights, each. */
    int n_batch;
    float *embd;         /* [n_ubatch][n_embd] */
    const float *direct; /* rows to be used in place of embd: the batch is one run of picture rows */
    llama_pos *pos;
    llama_seq_id *seq, **seq_id;
    int32_t *n_seq_id;
    int8_t *output;
};

/* libllama's parameters for a layout; the arrays that they point to live in scratch. */
typedef struct lb_language_scratch {
    ggml_backend_dev_t devices[LB_DEVICES_MAX + 1];
    float split[LB_DEVICES_MAX];
    struct llama_model_tensor_buft_override override[3];
    char pattern[512];
} lb_language_scratch;
struct llama_model_params lb_language_model_params(const lb_vlm_params *params, const lb_gguf *file,
                                                   const lb_device *devices, int n_devices, int n_layer,
                                                   lb_language_scratch *scratch);
/* False: the token embeddings are the output matrix as well ("tied"). */
bool lb_language_has_output(const lb_gguf *file);
struct llama_context_params lb_language_context_params(const lb_vlm_params *params, const lb_device *device,
                                                       int64_t n_cells);
enum {
    LB_CELLS_STEP = 256 /* libllama pads the KV cache to this */
};

/* Checks what libllama and ggml would abort on; architecture: [64]. */
lb_status lb_language_check_header(const lb_gguf *file, const char *path, char *architecture, int *n_layer,
                                   lb_error *error);

/* Appends one token of a sequence; row: its embedding when it is visual (else NULL). The batch must have room. */
lb_status lb_language_push(lb_language *language, int32_t token, const float *row, int pos, int seq, bool output,
                           lb_error *error);

/* Evaluates the batch and empties it. Errors: DOES_NOT_FIT, BACKEND. */
lb_status lb_language_evaluate(lb_language *language, lb_error *error);

#endif
