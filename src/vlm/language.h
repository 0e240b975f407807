/* The language model on libllama: embeddings and tokens in, logits and tokens out. Behind vlm.h. */
#ifndef LB_VLM_LANGUAGE_H
#define LB_VLM_LANGUAGE_H

#include "nn/device.h"
#include "vlm/vlm.h"

typedef struct lb_language lb_language;

/* Weights and vocabulary; the context comes with lb_language_reserve. */
lb_status lb_language_open(const lb_vlm_params *params, const lb_device *device, lb_language **language,
                           lb_error *error);
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

#endif
