/* From the model's text to a letter. */
#ifndef LB_ANSWER_LETTER_H
#define LB_ANSWER_LETTER_H

#include <stdbool.h>
#include <stddef.h>

/* Which choice (0 for A ...) the text names, by design.md's rules in their order; -1 when none of them gives a letter
 * within n_choices (the caller answers A and marks the fallback). text: valid UTF-8. */
int lb_letter_extract(const char *text, int n_choices);

/* A copy of bytes[0..n) stripped of white space as Python's str.strip() does it, with broken UTF-8 as U+FFFD as Python's
 * decode(errors="replace") does it. The caller frees it; NULL: out of memory. */
char *lb_text_clean(const char *bytes, size_t n);

/* NFC of valid UTF-8 (utf8proc), as Qwen2's tokenizer normalises. The caller frees it; NULL: out of memory or not
 * UTF-8. */
char *lb_text_nfc(const char *text);

#endif
