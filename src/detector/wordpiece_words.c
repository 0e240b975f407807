#include "base/error.h"
#include "detector/wordpiece_internal.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Unicode's White_Space, which Rust's char::is_whitespace follows. */
static bool is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Control, format and private characters, which the cleaning takes away. */
static bool is_dropped(int32_t c) {
    if (c == '\t' || c == '\n' || c == '\r')
        return false;
    utf8proc_category_t category = utf8proc_category(c);
    return c == 0 || c == 0xFFFD || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CO;
}

/* As tokenizers has it: 2B920 where Unicode's block (and the original BERT) begins at 2B820. */
static bool is_chinese(int32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static bool is_punctuation(int32_t c) {
    if ((c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126))
        return true;
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* Cleaned text with Chinese characters apart. out: [3 * strlen(text)]. False: not UTF-8. */
static bool clean(const char *text, int32_t *out, size_t *n) {
    size_t length = strlen(text);
    *n = 0;
    for (size_t at = 0; at < length;) {
        int32_t c;
        utf8proc_ssize_t used =
            utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(length - at), (utf8proc_int32_t *)&c);
        if (used <= 0)
            return false;
        at += (size_t)used;
        if (is_dropped(c))
            continue;
        bool apart = is_chinese(c);
        if (apart)
            out[(*n)++] = ' ';
        out[(*n)++] = is_space(c) ? ' ' : c;
        if (apart)
            out[(*n)++] = ' ';
    }
    return true;
}

/* Canonical decomposition of all characters; their order need not be canonical, since the marks that could change
 * places go away (Mn), all but a few musical ones. */
static bool decompose(const int32_t *in, size_t n, int32_t **out, size_t *n_out) {
    size_t capacity = 4 * n + 16;
    int32_t *buffer = malloc(capacity * sizeof *buffer);
    *out = NULL;
    *n_out = 0;
    for (size_t i = 0; i < n && buffer; i++) {
        int last_class = 0;
        if (capacity - *n_out < 16) { /* no character decomposes into more than 4 */
            int32_t *larger = realloc(buffer, 2 * capacity * sizeof *buffer);
            if (!larger) {
                free(buffer);
                return false;
            }
            buffer = larger;
            capacity *= 2;
        }
        utf8proc_ssize_t got = utf8proc_decompose_char(in[i], buffer + *n_out, 16, UTF8PROC_DECOMPOSE, &last_class);
        if (got < 0 || got > 16) {
            buffer[*n_out] = in[i];
            got = 1;
        }
        *n_out += (size_t)got;
    }
    *out = buffer;
    return buffer != NULL;
}

/* out: [5 * n]: four bytes a character at most, and a NUL after each word. */
static size_t split(const int32_t *in, size_t n, char *out) {
    size_t used = 0;
    bool in_word = false;
    for (size_t i = 0; i < n; i++) {
        int32_t c = in[i];
        if (utf8proc_category(c) == UTF8PROC_CATEGORY_MN)
            continue;
        c = utf8proc_tolower(c);
        bool alone = is_punctuation(c);
        if (in_word && (alone || is_space(c)))
            out[used++] = 0;
        in_word = !alone && !is_space(c);
        if (is_space(c))
            continue;
        used += (size_t)utf8proc_encode_char(c, (uint8_t *)out + used);
        if (alone)
            out[used++] = 0;
    }
    if (in_word)
        out[used++] = 0;
    return used;
}

lb_status lb_bert_words(const char *text, char **words, size_t *n_bytes, lb_error *error) {
    *words = NULL;
    *n_bytes = 0;
    lb_status status = LB_STATUS_OK;
    size_t length = strlen(text), n = 0, n_decomposed = 0;
    int32_t *cleaned = NULL, *decomposed = NULL;
    if (length > SIZE_MAX / 256 || !(cleaned = malloc((3 * length + 1) * sizeof *cleaned)))
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tokenizer: no memory for a text of %zu bytes", length);
    if (!clean(text, cleaned, &n)) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "tokenizer: '%.60s' is not UTF-8", text);
        goto cleanup;
    }
    if (!decompose(cleaned, n, &decomposed, &n_decomposed) || !(*words = malloc(5 * n_decomposed + 1))) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tokenizer: no memory for a text of %zu bytes", length);
        goto cleanup;
    }
    *n_bytes = split(decomposed, n_decomposed, *words);
cleanup:
    free(cleaned);
    free(decomposed);
    return status;
}
