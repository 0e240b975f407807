#include "detector/labels.h"

#include "base/error.h"
#include "base/file.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define MAX_LABELS     4096
#define MAX_FILE_BYTES ((size_t)1 << 20)

const char *const lb_labels_default[LB_LABELS_DEFAULT_N] = {
    "traffic sign", "traffic light", "traffic signal", "lane arrow", "road marking", "lane marking", "vehicle",
    "car",          "truck",         "motorcycle",     "bicycle",    "pedestrian",   "stop sign",    "speed limit sign",
};

static lb_status no_memory(lb_error *error) {
    return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "labels: no memory");
}

/* What Python's str.strip() takes away. */
static bool is_space(int32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool is_letter(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

/* Characters of text without the white space at its ends. out: [strlen(text)]. False: not UTF-8. */
static bool strip(const char *text, int32_t *out, size_t *n, const char **begin, const char **end) {
    size_t length = strlen(text);
    *n = 0;
    *begin = *end = text;
    for (size_t at = 0; at < length;) {
        utf8proc_ssize_t used = utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(length - at), out + *n);
        if (used <= 0)
            return false;
        if (!*n)
            *begin = text + at;
        at += (size_t)used;
        if (!*n && is_space(out[0]))
            continue;
        if (!is_space(out[*n]))
            *end = text + at;
        (*n)++;
    }
    while (*n && is_space(out[*n - 1]))
        (*n)--;
    if (*end < *begin)
        *begin = *end;
    return true;
}

/* Python's str.lower(): one character for one, but for a dotted capital I and for sigma at a word's end.
 * out: [6 * n + 1] UTF-8. */
static void lower(const int32_t *in, size_t n, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t c = utf8proc_tolower(in[i]);
        if (in[i] == 0x3A3 && i && is_letter(in[i - 1]) && !(i + 1 < n && is_letter(in[i + 1])))
            c = 0x3C2;
        if (in[i] == 0x130)
            c = 'i';
        used += (size_t)utf8proc_encode_char(c, (uint8_t *)out + used);
        if (in[i] == 0x130)
            used += (size_t)utf8proc_encode_char(0x307, (uint8_t *)out + used);
    }
    out[used] = 0;
}

/* Label i as the caller wrote it, stripped, and its lower case. */
static lb_status take(const char *source, int i, char **label, char **lowered, lb_error *error) {
    size_t length = strlen(source), n;
    const char *begin, *end;
    lb_status status = LB_STATUS_OK;
    int32_t *characters = malloc((length + 1) * sizeof *characters);
    *label = *lowered = NULL;
    if (!characters)
        return no_memory(error);
    if (!strip(source, characters, &n, &begin, &end)) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "label %d: not UTF-8", i + 1);
    } else if (n == 0) {
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "label %d is empty", i + 1);
    } else if (memchr(begin, '.', (size_t)(end - begin))) {
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                              "label %d '%.*s': a full stop separates labels; write it without", i + 1,
                              (int)(end - begin), begin);
    } else if (!(*label = strndup(begin, (size_t)(end - begin))) || !(*lowered = malloc(6 * n + 1))) {
        status = no_memory(error);
    } else {
        lower(characters, n, *lowered);
    }
    free(characters);
    return status;
}

static lb_status append(char **text, const char *more, const char *between, lb_error *error) {
    size_t used = *text ? strlen(*text) : 0;
    char *larger = realloc(*text, used + strlen(between) + strlen(more) + 1);
    if (!larger)
        return no_memory(error);
    *text = larger;
    strcpy(larger + used, used ? between : "");
    strcat(larger + used, more);
    return LB_STATUS_OK;
}

/* Adds one label's tokens and its full stop. No token goes over a full stop, so that each label can be taken alone. */
static lb_status add(lb_labels *l, const lb_wordpiece *tokenizer, const char *lowered, int max_tokens, int *n_all,
                     lb_error *error) {
    lb_wordpiece_tokens tokens;
    lb_status status = lb_wordpiece_encode(tokenizer, lowered, &tokens, error);
    if (status != LB_STATUS_OK)
        return status;
    int i = l->n, room = max_tokens - 1 - *n_all; /* one is kept for [SEP] */
    if (tokens.n == 0)
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                              "label %d '%s': nothing is left of it for the tokenizer", i + 1, l->label[i]);
    if (status == LB_STATUS_OK && tokens.unknown)
        status = append(&l->unknown, tokens.unknown, ", ", error);
    if (status == LB_STATUS_OK) {
        l->first[i] = *n_all;
        l->end[i] = *n_all + (int)tokens.n;
        for (int k = 0; k < (int)tokens.n && k < room; k++)
            l->token[*n_all + k] = tokens.id[k];
        if ((int)tokens.n < room)
            l->token[l->end[i]] = lb_wordpiece_find(tokenizer, ".");
        *n_all = l->end[i] + 1;
        l->n++;
    }
    lb_wordpiece_tokens_free(&tokens);
    return status;
}

lb_status lb_labels_create(const lb_wordpiece *tokenizer, const char *const *label, int n, int max_tokens,
                           lb_labels **labels, lb_error *error) {
    *labels = NULL;
    if (n < 1 || n > MAX_LABELS || max_tokens < 4)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "labels: %d of them; from 1 to %d are possible", n,
                            MAX_LABELS);
    lb_status status = LB_STATUS_OK;
    lb_labels *l = calloc(1, sizeof *l);
    if (!l)
        return no_memory(error);
    l->label = calloc((size_t)n, sizeof *l->label);
    l->first = calloc((size_t)n, sizeof *l->first);
    l->end = calloc((size_t)n, sizeof *l->end);
    l->token = calloc((size_t)max_tokens, sizeof *l->token);
    if (!l->label || !l->first || !l->end || !l->token) {
        status = no_memory(error);
        goto cleanup;
    }
    int n_all = 1;
    l->token[0] = lb_wordpiece_find(tokenizer, "[CLS]");
    for (int i = 0; i < n && status == LB_STATUS_OK; i++) {
        char *lowered = NULL;
        status = take(label[i], i, &l->label[i], &lowered, error);
        if (status == LB_STATUS_OK)
            status = append(&l->text, lowered, ". ", error);
        if (status == LB_STATUS_OK) {
            if (n_all < max_tokens)
                status = add(l, tokenizer, lowered, max_tokens, &n_all, error);
            else
                l->n++; /* so that it is freed */
        }
        free(lowered);
    }
    if (status == LB_STATUS_OK && n_all + 1 > max_tokens)
        status = lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                              "the %d labels are more than the %d tokens that the detector reads; leave some out", n,
                              max_tokens);
    if (status != LB_STATUS_OK)
        goto cleanup;
    status = append(&l->text, ".", "", error);
    l->token[n_all] = lb_wordpiece_find(tokenizer, "[SEP]");
    l->n_tokens = n_all + 1;
cleanup:
    if (status != LB_STATUS_OK) {
        l->n = n; /* label[] is NULL past what was read */
        lb_labels_free(l);
    } else {
        *labels = l;
    }
    return status;
}

lb_status lb_labels_read(const lb_wordpiece *tokenizer, const char *path, int max_tokens, lb_labels **labels,
                         lb_error *error) {
    *labels = NULL;
    char *bytes;
    size_t n_bytes;
    lb_status status = lb_file_read(path, MAX_FILE_BYTES, &bytes, &n_bytes, error);
    if (status != LB_STATUS_OK)
        return status;
    const char **line = calloc(MAX_LABELS + 1, sizeof *line);
    int n = 0;
    if (!line) {
        status = no_memory(error);
    } else if (memchr(bytes, 0, n_bytes)) {
        status = lb_error_set(error, LB_STATUS_FORMAT, "not a text file: it holds a NUL");
    } else {
        char *rest = strncmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? bytes + 3 : bytes, *one; /* a byte order mark */
        while ((one = strsep(&rest, "\r\n")) && n <= MAX_LABELS)
            if (one[strspn(one, " \t")])
                line[n++] = one;
        status = n ? lb_labels_create(tokenizer, line, n, max_tokens, labels, error)
                   : lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "no label in it; write one a line");
    }
    if (status != LB_STATUS_OK)
        lb_error_context(error, "%s", path);
    free(line);
    free(bytes);
    return status;
}

void lb_labels_free(lb_labels *l) {
    if (!l)
        return;
    for (int i = 0; i < l->n && l->label; i++)
        free(l->label[i]);
    free(l->label);
    free(l->text);
    free(l->token);
    free(l->first);
    free(l->end);
    free(l->unknown);
    free(l);
}
