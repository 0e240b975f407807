/* BERT's words: what the vocabulary is looked up with. */
#ifndef LB_DETECTOR_WORDPIECE_INTERNAL_H
#define LB_DETECTOR_WORDPIECE_INTERNAL_H

#include "lowbeam/status.h"

#include <stddef.h>

/* Cleans text, puts spaces around Chinese characters, strips accents, lowers the case, and splits at white space and
 * around punctuation (tokenizers' BertNormalizer and BertPreTokenizer). *words: each word with a NUL after it, free()
 * it; *n_bytes: with the NULs. Errors: FORMAT (not UTF-8), OUT_OF_MEMORY. */
lb_status lb_bert_words(const char *text, char **words, size_t *n_bytes, lb_error *error);

#endif
