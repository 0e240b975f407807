/* Qwen2's tokenizer, by libllama with the vocabulary alone: text to ids and back.
 *
 *     lb_tokenizer *tokenizer;
 *     lb_tokenizer_open("llm.gguf", &tokenizer, &error);
 *     lb_tokens tokens = {0};
 *     lb_tokenizer_add_special(tokenizer, "<|im_start|>", &tokens, &error);
 *     lb_tokenizer_add_text(tokenizer, "system\n...", strlen(...), &tokens, &error);   // special tokens typed in it:
 * text
 */
#ifndef LB_VLM_TOKENIZER_H
#define LB_VLM_TOKENIZER_H

#include "lowbeam/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lb_tokenizer lb_tokenizer;

typedef struct lb_tokens {
    int32_t *id; /* zero-initialise; freed with lb_tokens_free */
    size_t n, capacity;
} lb_tokens;

typedef struct lb_special_tokens {
    int32_t im_start, im_end, img, img_end;
} lb_special_tokens;

/* Errors: FORMAT, UNSUPPORTED: a model that has not <|im_start|>, <|im_end|>, <img> and </img> as single tokens. */
lb_status lb_tokenizer_open(const char *path, lb_tokenizer **tokenizer, lb_error *error);
void lb_tokenizer_free(lb_tokenizer *tokenizer);
const lb_special_tokens *lb_tokenizer_special(const lb_tokenizer *tokenizer);

/* text: valid UTF-8 in NFC (lb_text_nfc): Qwen2's tokenizer normalises, libllama does not. Special tokens typed in it
 * are plain text. */
lb_status lb_tokenizer_add_text(const lb_tokenizer *tokenizer, const char *text, size_t n, lb_tokens *tokens,
                                lb_error *error);
lb_status lb_tokens_push(lb_tokens *tokens, int32_t id, size_t times, lb_error *error);
void lb_tokens_free(lb_tokens *tokens);

/* The bytes that the ids decode to, special tokens left out; not always whole UTF-8. Caller frees *bytes. */
lb_status lb_tokenizer_decode(const lb_tokenizer *tokenizer, const int32_t *id, size_t n, char **bytes, size_t *n_bytes,
                              lb_error *error);

#endif
