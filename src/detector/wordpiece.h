/* BERT's tokenizer (lower case, accents stripped, WordPiece) as transformers 5.23's BertTokenizer does it.
 *
 *     lb_wordpiece *tokenizer;
 *     lb_wordpiece_from_gguf(file, &tokenizer, &error);
 *     lb_wordpiece_tokens tokens;
 *     lb_wordpiece_encode(tokenizer, "traffic sign", &tokens, &error);     // 4026, 3696; no [CLS], no [SEP]
 *     lb_wordpiece_tokens_free(&tokens);
 *     lb_wordpiece_free(tokenizer);
 */
#ifndef LB_DETECTOR_WORDPIECE_H
#define LB_DETECTOR_WORDPIECE_H

#include "lowbeam/status.h"
#include "nn/gguf_file.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lb_wordpiece lb_wordpiece;

/* vocab.txt: one token a line, its id the line's number from 0; "##" before a piece that goes on a word.
 * label stands in messages. Errors: FORMAT ([UNK], [CLS], [SEP] or "." missing, not UTF-8), OUT_OF_MEMORY. */
lb_status lb_wordpiece_from_vocab(const char *label, const char *bytes, size_t n_bytes, lb_wordpiece **tokenizer,
                                  lb_error *error);

/* From tokenizer.ggml.tokens of a "bert" vocabulary, in llama.cpp's spelling: U+2581 before a piece that begins a word,
 * nothing before one that goes on, [X] as it is. Errors: as above. */
lb_status lb_wordpiece_from_gguf(const lb_gguf *file, lb_wordpiece **tokenizer, lb_error *error);
void lb_wordpiece_free(lb_wordpiece *tokenizer);

size_t lb_wordpiece_n(const lb_wordpiece *tokenizer);
const char *lb_wordpiece_token(const lb_wordpiece *tokenizer, int32_t id);   /* as vocab.txt spells it */
int32_t lb_wordpiece_find(const lb_wordpiece *tokenizer, const char *token); /* -1: none */

/* Token i in llama.cpp's spelling into out. Errors: UNSUPPORTED (it would not be read back as it was). */
lb_status lb_wordpiece_ggml_token(const lb_wordpiece *tokenizer, int32_t id, char *out, size_t out_bytes,
                                  lb_error *error);

typedef struct lb_wordpiece_tokens {
    int32_t *id; /* [n] */
    size_t n;
    char *unknown; /* the words that became [UNK], as "a, b"; NULL when there are none */
} lb_wordpiece_tokens;

/* text: UTF-8. Special tokens written in it ("[SEP]") are plain text. Errors: FORMAT (not UTF-8), OUT_OF_MEMORY. */
lb_status lb_wordpiece_encode(const lb_wordpiece *tokenizer, const char *text, lb_wordpiece_tokens *tokens,
                              lb_error *error);
void lb_wordpiece_tokens_free(lb_wordpiece_tokens *tokens); /* zeroes it */

/* The text of ids, as batch_decode gives it: spaces between words, none before . ? ! , and the like.
 * *text: free() it. Errors: INVALID_ARGUMENT (an id outside the vocabulary), OUT_OF_MEMORY. */
lb_status lb_wordpiece_decode(const lb_wordpiece *tokenizer, const int32_t *id, size_t n, char **text, lb_error *error);

#endif
