/* Text that a model wrote, or that a model is to read: decoding, white space, normal form.
 *
 *     char *text = lb_text_clean(bytes, n_bytes);      // what the tokens decoded to
 *     int letter = lb_letter_extract(text, 4);
 *     free(text);
 */
#ifndef LB_ANSWER_TEXT_H
#define LB_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* One character of bytes[0..n), n at least 1, as Python's decode(errors="replace") sees it: its length in bytes; broken
 * is set when these bytes are no character but the longest beginning of one, which U+FFFD stands for. */
size_t lb_text_character(const char *bytes, size_t n, bool *broken);

/* The first byte of text that is not valid UTF-8; NULL when all is. */
const char *lb_text_first_broken(const char *text);

/* A copy of bytes[0..n) with broken UTF-8 as U+FFFD as Python's decode(errors="replace") does it; NUL becomes U+FFFD
 * too. The caller frees it; NULL: out of memory. */
char *lb_text_decode(const char *bytes, size_t n);

/* lb_text_decode, then stripped of white space as Python's str.strip() does it. The caller frees it; NULL: out of
 * memory. */
char *lb_text_clean(const char *bytes, size_t n);

/* NFC of valid UTF-8 (utf8proc), as Qwen2's tokenizer normalises. The caller frees it; NULL: out of memory or not
 * UTF-8. Time grows with the length alone, whatever the text. */
char *lb_text_nfc(const char *text);

#endif
