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

/* Rust's tokenizers knows the categories of Unicode 8.0: marks, punctuation and format characters that came later are
 * letters to it. Those of 14.0 that this touches; tests/checks/check_detector_pre.py finds what is missing. */
static const struct {
    int32_t first, last;
} younger[] = {
    {0x61D, 0x61D},     {0x7FD, 0x7FD},     {0x890, 0x891},     {0x898, 0x89F},     {0x8CA, 0x8E2},
    {0x9FD, 0x9FE},     {0xA76, 0xA76},     {0xAFA, 0xAFF},     {0xB55, 0xB55},     {0xC04, 0xC04},
    {0xC3C, 0xC3C},     {0xC77, 0xC77},     {0xC84, 0xC84},     {0xD00, 0xD00},     {0xD3B, 0xD3C},
    {0xD81, 0xD81},     {0xEBA, 0xEBA},     {0x180F, 0x180F},   {0x1885, 0x1886},   {0x1ABF, 0x1ACE},
    {0x1B7D, 0x1B7E},   {0x1DF6, 0x1DFB},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0xA82C, 0xA82C},
    {0xA8C5, 0xA8C5},   {0xA8FF, 0xA8FF},   {0xA9BD, 0xA9BD},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAD},
    {0x10F46, 0x10F50}, {0x10F55, 0x10F59}, {0x10F82, 0x10F89}, {0x11070, 0x11070}, {0x11073, 0x11074},
    {0x110C2, 0x110C2}, {0x110CD, 0x110CD}, {0x111CF, 0x111CF}, {0x1123E, 0x1123E}, {0x1133B, 0x1133B},
    {0x11438, 0x1143F}, {0x11442, 0x11444}, {0x11446, 0x11446}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B},
    {0x1145D, 0x1145E}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1182F, 0x11837}, {0x11839, 0x1183B},
    {0x1193B, 0x1193C}, {0x1193E, 0x1193E}, {0x11943, 0x11946}, {0x119D4, 0x119D7}, {0x119DA, 0x119DB},
    {0x119E0, 0x119E0}, {0x119E2, 0x119E2}, {0x11A01, 0x11A0A}, {0x11A33, 0x11A38}, {0x11A3B, 0x11A47},
    {0x11A51, 0x11A56}, {0x11A59, 0x11A5B}, {0x11A8A, 0x11A96}, {0x11A98, 0x11A9C}, {0x11A9E, 0x11AA2},
    {0x11C30, 0x11C36}, {0x11C38, 0x11C3D}, {0x11C3F, 0x11C3F}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71},
    {0x11C92, 0x11CA7}, {0x11CAA, 0x11CB0}, {0x11CB2, 0x11CB3}, {0x11CB5, 0x11CB6}, {0x11D31, 0x11D36},
    {0x11D3A, 0x11D3A}, {0x11D3C, 0x11D3D}, {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D90, 0x11D91},
    {0x11D95, 0x11D95}, {0x11D97, 0x11D97}, {0x11EF3, 0x11EF4}, {0x11EF7, 0x11EF8}, {0x11FFF, 0x11FFF},
    {0x12FF1, 0x12FF2}, {0x13430, 0x13438}, {0x16E97, 0x16E9A}, {0x16F4F, 0x16F4F}, {0x16FE2, 0x16FE2},
    {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF2D}, {0x1CF30, 0x1CF46}, {0x1E000, 0x1E006}, {0x1E008, 0x1E018},
    {0x1E01B, 0x1E021}, {0x1E023, 0x1E024}, {0x1E026, 0x1E02A}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E944, 0x1E94A}, {0x1E95E, 0x1E95F},
};

static utf8proc_category_t category_of(int32_t c) {
    if (c == 0x166D || c == 0x111C9) /* punctuation and marks in 8.0, something else since */
        return UTF8PROC_CATEGORY_PO;
    if (c == 0x1734)
        return UTF8PROC_CATEGORY_MN;
    size_t low = 0, high = sizeof younger / sizeof *younger;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > younger[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < sizeof younger / sizeof *younger && c >= younger[low].first;
    return found ? UTF8PROC_CATEGORY_LO : utf8proc_category(c);
}

/* Control, format and private characters, which the cleaning takes away. */
static bool is_dropped(int32_t c) {
    if (c == '\t' || c == '\n' || c == '\r')
        return false;
    utf8proc_category_t category = category_of(c);
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
    utf8proc_category_t category = category_of(c);
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
        if (category_of(c) == UTF8PROC_CATEGORY_MN)
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
