/* The language model on libllama: embeddings and tokens in, logits and tokens out. Behind vlm.h. */
#ifndef LB_VLM_LANGUAGE_H
#define LB_VLM_LANGUAGE_H

#include "nn/device.h"
#include "vlm/vlm.h"

typedef struct lb_language lb_language;

/* Weights and vocabulary; the context comes with lb_language_reserve. devices: [n], those that the layout names. */
lb_status lb_language_open(const lb_vlm_params *params, const lb_device *devices, int n_devices, lb_language **language,
                           lb_error *error);
/* Frees the context (KV cache, activations, pool), which comes again with the next lb_language_reserve. */
void lb_language_rest(lb_language *language);
void lb_language_free(lb_language *language);

int lb_language_n_embd(const lb_language *language);
int lb_language_n_vocab(const lb_language *language);
int lb_language_n_ctx_train(const lb_language *language);
const char *lb_language_architecture(const lb_language *language);

lb_status lb_language_reserve(lb_language *language, int n_cells, lb_error *error);

/* As lb_vlm_prefix and lb_vlm_answer; pictures_id tells one video's embeddings from another's. */
lb_status lb_language_prefix(lb_language *language, const int32_t *tokens, int n, const float *rows, int64_t n_rows,
                             uint64_t pictures_id, lb_error *error);
lb_status lb_language_answer(lb_language *language, const lb_vlm_ask *asks, int n_asks, const float *rows,
                             int64_t n_rows, const int32_t *stop, int n_stop, lb_vlm_reply *replies, double *prompt_s,
                             double *generate_s, lb_error *error);

/* What a language model would take, without loading it: libllama is asked with its memory simulated (0.3 s to open).
 *
 *     lb_language_probe_open(&params, devices, n_devices, &probe, &error);
 *     lb_language_probe_sizes(probe, &params, &sizes, &error);         // for one layout; again for others
 *     lb_language_probe_free(probe);
 */
typedef struct lb_language_probe lb_language_probe;

typedef struct lb_language_sizes {
    size_t weights[LB_DEVICES_MAX], kv[LB_DEVICES_MAX], compute[LB_DEVICES_MAX];
    size_t host_weights; /* of host layers, pinned, and with them token embeddings; what stays in a mapped file is not
                            counted */
    size_t host_compute;
} lb_language_sizes;

typedef struct lb_language_shape {
    int n_layer, n_vocab, n_embd, n_ff, n_ctx_train;
    size_t layer_bytes; /* of the largest layer's weights on a device */
    size_t output_bytes;
    size_t kv_cell_bytes; /* of one layer, f16 */
    bool is_quantized;    /* the layers' matrices, in the file */
} lb_language_shape;

lb_status lb_language_probe_open(const lb_vlm_params *params, const lb_device *devices, int n_devices,
                                 lb_language_probe **probe, lb_error *error);
const lb_language_shape *lb_language_probe_shape(const lb_language_probe *probe);
/* Of params n_ubatch, n_parallel, exact and layout (with n_cells above 0) count. */
lb_status lb_language_probe_sizes(lb_language_probe *probe, const lb_vlm_params *params, lb_language_sizes *sizes,
                                  lb_error *error);
void lb_language_probe_free(lb_language_probe *probe);

#endif
