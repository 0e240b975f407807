#include "vlm/tokenizer.h"

#include "base/error.h"
#include "nn/log.h"
#include "nn/gguf_file.h"
#include "vlm/llama_log.h"

#include <limits.h>
#include <llama.h>
#include <stdlib.h>
#include <string.h>

struct lb_tokenizer {
    struct llama_model *model; /* vocabulary alone */
    const struct llama_vocab *vocab;
    lb_special_tokens special;
};

static lb_status find_special(const lb_tokenizer *tokenizer, const char *path, const char *name, int32_t *id,
                              lb_error *error) {
    llama_token found[4];
    int n = llama_tokenize(tokenizer->vocab, name, (int32_t)strlen(name), found, 4, false, true);
    if (n != 1)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED,
                            "%s: its vocabulary has not %s as one token, so it is no InternVL language model", path,
                            name);
    *id = found[0];
    return LB_STATUS_OK;
}

lb_status lb_tokenizer_open(const char *path, lb_tokenizer **out, lb_error *error) {
    *out = NULL;
    lb_gguf *file;
    lb_status status = lb_gguf_open(path, &file, error); /* names what is wrong, which libllama does not */
    if (status != LB_STATUS_OK)
        return status;
    const char *arch = NULL;
    status = lb_gguf_string(file, "general.architecture", &arch, error);
    if (status == LB_STATUS_OK && strcmp(arch, "clip") == 0)
        status = lb_error_set(error, LB_STATUS_UNSUPPORTED,
                              "%s: this is the vision part ('clip'); are --model and --mmproj exchanged?", path);
    if (status == LB_STATUS_OK && lb_gguf_array_n(file, "tokenizer.ggml.tokens") == 0)
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: the header has no 'tokenizer.ggml.tokens'", path);
    lb_gguf_close(file);
    if (status != LB_STATUS_OK)
        return status;

    lb_llama_log_route();
    lb_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the tokenizer", path);
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    tokenizer->model = llama_model_load_from_file(path, params);
    if (!tokenizer->model) {
        status =
            lb_error_set(error, LB_STATUS_FORMAT, "%s: no vocabulary can be read: %s", path, lb_nn_last_log_error());
        goto cleanup;
    }
    tokenizer->vocab = llama_model_get_vocab(tokenizer->model);
    if (llama_vocab_type(tokenizer->vocab) == LLAMA_VOCAB_TYPE_NONE) { /* llama_tokenize would abort */
        status = lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: 'tokenizer.ggml.model' says that it has no tokenizer",
                              path);
        goto cleanup;
    }
    const struct {
        const char *name;
        int32_t *id;
    } wanted[] = {{"<|im_start|>", &tokenizer->special.im_start},
                  {"<|im_end|>", &tokenizer->special.im_end},
                  {"<img>", &tokenizer->special.img},
                  {"</img>", &tokenizer->special.img_end}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && status == LB_STATUS_OK; i++)
        status = find_special(tokenizer, path, wanted[i].name, wanted[i].id, error);
cleanup:
    if (status != LB_STATUS_OK)
        lb_tokenizer_free(tokenizer);
    else
        *out = tokenizer;
    return status;
}

void lb_tokenizer_free(lb_tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    llama_model_free(tokenizer->model);
    free(tokenizer);
}

const lb_special_tokens *lb_tokenizer_special(const lb_tokenizer *tokenizer) {
    return &tokenizer->special;
}

void lb_tokens_free(lb_tokens *tokens) {
    free(tokens->id);
    *tokens = (lb_tokens){0};
}

static lb_status grow(lb_tokens *tokens, size_t more, lb_error *error) {
    if (more > INT_MAX || tokens->n > INT_MAX - more)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "the prompt has more than %d tokens", INT_MAX);
    if (tokens->n + more <= tokens->capacity)
        return LB_STATUS_OK;
    size_t capacity = (tokens->n + more) * 2;
    int32_t *id = realloc(tokens->id, capacity * sizeof *id);
    if (!id)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %zu tokens", capacity);
    tokens->id = id;
    tokens->capacity = capacity;
    return LB_STATUS_OK;
}

lb_status lb_tokens_push(lb_tokens *tokens, int32_t id, size_t times, lb_error *error) {
    lb_status status = grow(tokens, times, error);
    for (size_t i = 0; i < times && status == LB_STATUS_OK; i++)
        tokens->id[tokens->n++] = id;
    return status;
}

lb_status lb_tokenizer_add_text(const lb_tokenizer *tokenizer, const char *text, size_t n, lb_tokens *tokens,
                                lb_error *error) {
    if (n == 0)
        return LB_STATUS_OK;
    if (n > INT_MAX / 4)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "a text of %zu bytes in the prompt", n);
    /* every token stands for at least one byte */
    lb_status status = grow(tokens, n + 1, error);
    if (status == LB_STATUS_OK) {
        int32_t room = (int32_t)(tokens->capacity - tokens->n);
        int32_t got = llama_tokenize(tokenizer->vocab, text, (int32_t)n, tokens->id + tokens->n, room, false, false);
        if (got < 0)
            status = lb_error_set(error, LB_STATUS_INTERNAL, "the tokenizer wants room for %lld tokens of %zu bytes",
                                  -(long long)got, n); /* it may be the least int, which has no opposite */
        else
            tokens->n += (size_t)got;
    }
    return status;
}

lb_status lb_tokenizer_decode(const lb_tokenizer *tokenizer, const int32_t *id, size_t n, char **bytes, size_t *n_bytes,
                              lb_error *error) {
    *bytes = NULL;
    *n_bytes = 0;
    size_t capacity = 16 + 8 * n, used = 0;
    char *text = malloc(capacity);
    for (size_t i = 0; i < n && text; i++) {
        int32_t got = llama_token_to_piece(tokenizer->vocab, id[i], text + used, (int32_t)(capacity - used), 0, false);
        if (got < 0) {
            capacity = capacity * 2 + (size_t)(-(long long)got);
            char *more = realloc(text, capacity);
            if (!more)
                free(text);
            text = more;
            i--;
        } else {
            used += (size_t)got;
        }
    }
    if (!text)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the text of %zu tokens", n);
    *bytes = text;
    *n_bytes = used;
    return LB_STATUS_OK;
}
