#include "detector/wordpiece.h"

#include "base/error.h"
#include "detector/wordpiece_internal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A word of more characters is unknown as a whole (WordPiece's max_input_chars_per_word). */
#define MAX_WORD_CHARACTERS 100
#define MAX_VOCAB_BYTES     ((size_t)64 << 20)

struct lb_wordpiece {
    char *bytes;   /* all tokens, each with its NUL */
    size_t *token; /* [n] where each begins */
    size_t n;
    uint32_t *slot; /* [n_slots] id + 1, 0: empty */
    size_t n_slots; /* a power of two */
    int32_t unknown;
};

static uint64_t hash(const char *text, size_t n) {
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)text[i]) * 1099511628211u;
    return h;
}

static int32_t find(const lb_wordpiece *t, const char *prefix, const char *text, size_t n) {
    char key[8 + 4 * MAX_WORD_CHARACTERS];
    size_t used = strlen(prefix);
    if (n > sizeof key - used - 1)
        return -1;
    memcpy(key, prefix, used);
    memcpy(key + used, text, n);
    used += n;
    for (size_t i = (size_t)hash(key, used) & (t->n_slots - 1);; i = (i + 1) & (t->n_slots - 1)) {
        if (!t->slot[i])
            return -1;
        const char *other = t->bytes + t->token[t->slot[i] - 1];
        if (strncmp(other, key, used) == 0 && !other[used])
            return (int32_t)t->slot[i] - 1;
    }
}

/* Of two equal tokens the later is found, as in Python's dictionary. */
static void insert(lb_wordpiece *t, size_t id) {
    const char *token = t->bytes + t->token[id];
    size_t i = (size_t)hash(token, strlen(token)) & (t->n_slots - 1);
    while (t->slot[i] && strcmp(t->bytes + t->token[t->slot[i] - 1], token) != 0)
        i = (i + 1) & (t->n_slots - 1);
    t->slot[i] = (uint32_t)id + 1;
}

/* Takes bytes over. n tokens of it end with a NUL. */
static lb_status build(const char *label, char *bytes, size_t n, lb_wordpiece **out, lb_error *error) {
    *out = NULL;
    lb_wordpiece *t = calloc(1, sizeof *t);
    if (!t) {
        free(bytes);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the vocabulary", label);
    }
    lb_status status = LB_STATUS_OK;
    t->bytes = bytes;
    t->n = n;
    t->n_slots = 16;
    while (t->n_slots < 2 * n)
        t->n_slots *= 2;
    t->token = calloc(n + 1, sizeof *t->token);
    t->slot = calloc(t->n_slots, sizeof *t->slot);
    if (!t->token || !t->slot) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the vocabulary", label);
        goto cleanup;
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        t->token[i] = at;
        at += strlen(bytes + at) + 1;
        insert(t, i);
    }
    static const char *const needed[] = {"[UNK]", "[CLS]", "[SEP]", "."};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (find(t, "", needed[i], strlen(needed[i])) < 0) {
            status = lb_error_set(error, LB_STATUS_FORMAT, "%s: the vocabulary has no '%s': not BERT's vocab.txt",
                                  label, needed[i]);
            goto cleanup;
        }
    }
    t->unknown = find(t, "", "[UNK]", 5);
cleanup:
    if (status != LB_STATUS_OK)
        lb_wordpiece_free(t);
    else
        *out = t;
    return status;
}

lb_status lb_wordpiece_from_vocab(const char *label, const char *bytes, size_t n_bytes, lb_wordpiece **out,
                                  lb_error *error) {
    *out = NULL;
    if (n_bytes > MAX_VOCAB_BYTES || memchr(bytes, 0, n_bytes))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: not a vocab.txt (a NUL in it, or above 64 MiB)", label);
    char *copy = malloc(n_bytes + 1);
    if (!copy)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the vocabulary", label);
    size_t used = 0, n = 0;
    bool open = false; /* a last line without a newline counts */
    for (size_t i = 0; i < n_bytes; i++) {
        if (bytes[i] == '\r' && i + 1 < n_bytes && bytes[i + 1] == '\n')
            continue;
        open = bytes[i] != '\n';
        copy[used++] = open ? bytes[i] : 0;
        n += !open;
    }
    n += open;
    copy[used] = 0;
    return build(label, copy, n, out, error);
}

lb_status lb_wordpiece_from_gguf(const lb_gguf *file, lb_wordpiece **out, lb_error *error) {
    static const char key[] = "tokenizer.ggml.tokens";
    *out = NULL;
    size_t n = lb_gguf_array_n(file, key), total = 0, used = 0;
    for (size_t i = 0; i < n && total <= MAX_VOCAB_BYTES; i++)
        total += strlen(lb_gguf_array_string(file, key, i)) + 3;
    if (!n || total > MAX_VOCAB_BYTES)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: the header has no vocabulary (%s); convert it again",
                            lb_gguf_path(file), key);
    char *bytes = malloc(total);
    if (!bytes)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the vocabulary", lb_gguf_path(file));
    for (size_t i = 0; i < n; i++) {
        const char *token = lb_gguf_array_string(file, key, i);
        size_t length = strlen(token);
        if (strncmp(token, "\xE2\x96\x81", 3) == 0) {
            token += 3;
            length -= 3;
        } else if (length < 2 || token[0] != '[' || token[length - 1] != ']') {
            memcpy(bytes + used, "##", 2);
            used += 2;
        }
        memcpy(bytes + used, token, length + 1);
        used += length + 1;
    }
    return build(lb_gguf_path(file), bytes, n, out, error);
}

void lb_wordpiece_free(lb_wordpiece *t) {
    if (!t)
        return;
    free(t->bytes);
    free(t->token);
    free(t->slot);
    free(t);
}

size_t lb_wordpiece_n(const lb_wordpiece *t) {
    return t->n;
}

const char *lb_wordpiece_token(const lb_wordpiece *t, int32_t id) {
    return id < 0 || (size_t)id >= t->n ? NULL : t->bytes + t->token[id];
}

int32_t lb_wordpiece_find(const lb_wordpiece *t, const char *token) {
    return find(t, "", token, strlen(token));
}

lb_status lb_wordpiece_ggml_token(const lb_wordpiece *t, int32_t id, char *out, size_t out_bytes, lb_error *error) {
    const char *token = lb_wordpiece_token(t, id);
    size_t n = strlen(token);
    bool special = n >= 2 && token[0] == '[' && token[n - 1] == ']', goes_on = strncmp(token, "##", 2) == 0;
    if (goes_on) {
        token += 2;
        n -= 2;
        if (strncmp(token, "\xE2\x96\x81", 3) == 0 || (n >= 2 && token[0] == '[' && token[n - 1] == ']'))
            return lb_error_set(error, LB_STATUS_UNSUPPORTED, "token %d '%s' has no spelling in a GGUF vocabulary", id,
                                lb_wordpiece_token(t, id));
    }
    if (n + 4 > out_bytes)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "token %d of %zu bytes is too long", id, n);
    size_t lead = special || goes_on ? 0 : 3;
    memcpy(out, "\xE2\x96\x81", lead);
    memcpy(out + lead, token, n + 1);
    return LB_STATUS_OK;
}

typedef struct word {
    const char *text;
    size_t n_bytes, n_characters;
} word;

/* Longest match first; when some piece has none, the whole word is unknown. */
static bool split(const lb_wordpiece *t, const word *w, int32_t *id, size_t *n) {
    size_t at = 0, n_before = *n;
    while (w->n_characters <= MAX_WORD_CHARACTERS && at < w->n_bytes) {
        size_t end = w->n_bytes;
        int32_t found = -1;
        while (end > at && (found = find(t, at ? "##" : "", w->text + at, end - at)) < 0) {
            do
                end--;
            while (end > at && ((uint8_t)w->text[end] & 0xC0) == 0x80);
        }
        if (found < 0)
            break;
        id[(*n)++] = found;
        at = end;
    }
    if (at == w->n_bytes)
        return true;
    *n = n_before;
    id[(*n)++] = t->unknown;
    return false;
}

static lb_status add_unknown(lb_wordpiece_tokens *tokens, const word *w, lb_error *error) {
    size_t used = tokens->unknown ? strlen(tokens->unknown) : 0;
    char *larger = realloc(tokens->unknown, used + w->n_bytes + 3);
    if (!larger)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tokenizer: no memory for a text");
    tokens->unknown = larger;
    if (used) {
        memcpy(larger + used, ", ", 2);
        used += 2;
    }
    memcpy(larger + used, w->text, w->n_bytes);
    larger[used + w->n_bytes] = 0;
    return LB_STATUS_OK;
}

lb_status lb_wordpiece_encode(const lb_wordpiece *t, const char *text, lb_wordpiece_tokens *tokens, lb_error *error) {
    *tokens = (lb_wordpiece_tokens){0};
    char *words;
    size_t n_bytes;
    lb_status status = lb_bert_words(text, &words, &n_bytes, error);
    if (status != LB_STATUS_OK)
        return status;
    tokens->id = malloc((n_bytes + 1) * sizeof *tokens->id); /* a token has a byte at least */
    if (!tokens->id)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tokenizer: no memory for a text of %zu bytes", n_bytes);
    for (size_t at = 0; at < n_bytes && status == LB_STATUS_OK;) {
        word w = {.text = words + at, .n_bytes = strlen(words + at)};
        for (size_t i = 0; i < w.n_bytes; i++)
            w.n_characters += ((uint8_t)w.text[i] & 0xC0) != 0x80;
        if (!split(t, &w, tokens->id, &tokens->n))
            status = add_unknown(tokens, &w, error);
        at += w.n_bytes + 1;
    }
    free(words);
    if (status != LB_STATUS_OK)
        lb_wordpiece_tokens_free(tokens);
    return status;
}

void lb_wordpiece_tokens_free(lb_wordpiece_tokens *tokens) {
    free(tokens->id);
    free(tokens->unknown);
    *tokens = (lb_wordpiece_tokens){0};
}

/* Pieces that tokenizers' clean-up puts no space before. */
static bool takes_no_space(const char *token) {
    static const char *const starts[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strncmp(token, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

lb_status lb_wordpiece_decode(const lb_wordpiece *t, const int32_t *id, size_t n, char **text, lb_error *error) {
    *text = NULL;
    size_t total = 1, used = 0;
    for (size_t i = 0; i < n; i++) {
        if (!lb_wordpiece_token(t, id[i]))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "tokenizer: token %d of a vocabulary of %zu", id[i],
                                t->n);
        total += strlen(lb_wordpiece_token(t, id[i])) + 1;
    }
    char *out = malloc(total);
    if (!out)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "tokenizer: no memory for a text of %zu bytes", total);
    for (size_t i = 0; i < n; i++) {
        const char *token = lb_wordpiece_token(t, id[i]);
        if (i && strncmp(token, "##", 2) == 0)
            token += 2;
        else if (i && !takes_no_space(token))
            out[used++] = ' ';
        size_t length = strlen(token);
        memcpy(out + used, token, length);
        used += length;
    }
    out[used] = 0;
    *text = out;
    return LB_STATUS_OK;
}
