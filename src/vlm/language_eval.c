#include "base/error.h"
#include "base/time.h"
#include "nn/log.h"
#include "vlm/language_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

lb_status lb_language_push(lb_language *language, int32_t token, const float *row, int pos, int seq, bool output,
                           lb_error *error) {
    const size_t n_embd = (size_t)language->n_embd;
    const int i = language->n_batch;
    float *to = language->embd + (size_t)i * n_embd;
    /* A batch that is one run of picture rows is handed over where it lies; the first other token ends that. */
    if (i == 0)
        language->direct = row;
    else if (language->direct && row != language->direct + (size_t)i * n_embd) {
        memcpy(language->embd, language->direct, (size_t)i * n_embd * sizeof *to);
        language->direct = NULL;
    }
    if (!row) {
        lb_status status = lb_gguf_row(&language->token_embd, token, to, error);
        if (status != LB_STATUS_OK)
            return status;
    } else if (!language->direct) {
        memcpy(to, row, n_embd * sizeof *to);
    }
    language->pos[i] = pos;
    language->seq[i] = seq;
    language->output[i] = output;
    language->n_batch++;
    return LB_STATUS_OK;
}

lb_status lb_language_evaluate(lb_language *language, lb_error *error) {
    if (language->n_batch == 0)
        return LB_STATUS_OK;
    struct llama_batch batch = {
        .n_tokens = language->n_batch,
        .embd = language->direct ? (float *)language->direct : language->embd, /* libllama reads it only */
        .pos = language->pos,
        .n_seq_id = language->n_seq_id,
        .seq_id = language->seq_id,
        .logits = language->output,
    };
    language->n_batch = 0;
    int rc = llama_decode(language->ctx, batch);
    if (rc == 0)
        return LB_STATUS_OK;
    if (rc == 1)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "no room for %d more tokens in a KV cache of %d",
                            batch.n_tokens, language->n_cells);
    return lb_error_set(error, LB_STATUS_BACKEND, "language model: evaluation of %d tokens failed (%d): %s",
                        batch.n_tokens, rc, lb_nn_last_log_error());
}

/* The token's row of the pictures, or NULL for text; *next counts the rows used. */
static lb_status picture_row(const lb_language *language, int32_t token, const float *rows, int64_t n_rows,
                             int64_t *next, const float **row, lb_error *error) {
    *row = NULL;
    if (token != LB_TOKEN_VISUAL)
        return LB_STATUS_OK;
    if (*next >= n_rows)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "the prompt has more picture tokens than the %lld there are", (long long)n_rows);
    *row = rows + (size_t)(*next)++ * (size_t)language->n_embd;
    return LB_STATUS_OK;
}

/* and_data: what is left in the cells, too. A masked cell counts as zero times its value, which is not zero where that
 * is no number: it would spoil whatever is evaluated next. */
static void forget_prefix(lb_language *language, bool and_data) {
    if (language->ctx)
        llama_memory_clear(llama_get_memory(language->ctx), and_data);
    language->n_prefix = 0;
    language->n_prefix_rows = 0;
}

lb_status lb_language_prefix(lb_language *language, const int32_t *tokens, int n, const float *rows, int64_t n_rows,
                             uint64_t pictures_id, lb_error *error) {
    if (n > 0 && n == language->n_prefix && pictures_id == language->prefix_pictures &&
        memcmp(tokens, language->prefix, (size_t)n * sizeof *tokens) == 0)
        return LB_STATUS_OK;
    forget_prefix(language, false);
    language->n_batch = 0;
    if (n == 0)
        return LB_STATUS_OK;
    if (n > language->n_cells)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "a prefix of %d tokens in a KV cache of %d", n,
                            language->n_cells);
    int32_t *copy = realloc(language->prefix, (size_t)n * sizeof *copy);
    if (!copy)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d tokens", n);
    language->prefix = copy;
    memcpy(copy, tokens, (size_t)n * sizeof *copy);
    lb_status status = LB_STATUS_OK;
    int64_t next = 0;
    for (int i = 0; i < n && status == LB_STATUS_OK; i++) {
        const float *row;
        status = picture_row(language, tokens[i], rows, n_rows, &next, &row, error);
        if (status == LB_STATUS_OK)
            status = lb_language_push(language, tokens[i], row, i, 0, false, error);
        if (status == LB_STATUS_OK && (language->n_batch == language->params.n_ubatch || i == n - 1))
            status = lb_language_evaluate(language, error);
    }
    llama_synchronize(language->ctx); /* so that a device's failure and the time belong to this call */
    if (status != LB_STATUS_OK) {
        forget_prefix(language, false);
        return status;
    }
    language->n_prefix = n;
    language->n_prefix_rows = next;
    language->prefix_pictures = pictures_id;
    return LB_STATUS_OK;
}

/* One question while it is being answered. Its sequence is its place + 1. */
typedef struct dialogue {
    int n_past;   /* tokens evaluated */
    int32_t next; /* token chosen, not yet evaluated */
    bool done;
    int batch_index; /* of its output in the batch that is being filled, -1 none */
} dialogue;

typedef struct ask_batch {
    lb_language *language;
    const lb_vlm_ask *asks;
    int n;
    const int32_t *stop;
    int n_stop;
    lb_vlm_reply *replies;
    dialogue *dialogues;
} ask_batch;

/* The given tokens alone, as in the reference. Not llama_vocab_is_eog: a GGUF converted from the published folders
 * names no end token, and libllama then takes id 11, which is the comma. */
static bool is_stop(const ask_batch *r, int32_t token) {
    for (int i = 0; i < r->n_stop; i++)
        if (r->stop[i] == token)
            return true;
    return false;
}

/* Takes the chosen token of question i from its row of logits. */
static lb_status take(ask_batch *r, int i, lb_error *error) {
    dialogue *t = &r->dialogues[i];
    lb_vlm_reply *reply = &r->replies[i];
    const float *logits = llama_get_logits_ith(r->language->ctx, t->batch_index);
    const int n_vocab = r->language->n_vocab;
    t->batch_index = -1;
    if (!logits)
        return lb_error_set(error, LB_STATUS_BACKEND, "language model: no logits came back: %s",
                            lb_nn_last_log_error());
    int best = 0;
    float sum = 0;
    for (int v = 0; v < n_vocab; v++) {
        sum += logits[v] * 0.0f; /* NaN when one is not finite */
        if (logits[v] > logits[best])
            best = v;
    }
    if (!(sum == 0.0f))
        return lb_error_set(error, LB_STATUS_NOT_FINITE, "language model: logits are not finite after %d tokens",
                            t->n_past);
    if (!reply->logits) {
        reply->logits = malloc((size_t)n_vocab * sizeof *reply->logits);
        reply->token = malloc((size_t)(r->asks[i].n_new_max + 1) * sizeof *reply->token);
        if (!reply->logits || !reply->token)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for an answer");
        memcpy(reply->logits, logits, (size_t)n_vocab * sizeof *reply->logits);
    }
    if (r->asks[i].n_new_max == 0 || is_stop(r, best)) {
        reply->stopped = is_stop(r, best);
        t->done = true;
        return LB_STATUS_OK;
    }
    reply->token[reply->n_tokens++] = best;
    t->next = best;
    t->done = reply->n_tokens == r->asks[i].n_new_max;
    return LB_STATUS_OK;
}

static lb_status flush(ask_batch *r, lb_error *error) {
    lb_status status = lb_language_evaluate(r->language, error);
    for (int i = 0; i < r->n && status == LB_STATUS_OK; i++)
        if (r->dialogues[i].batch_index >= 0)
            status = take(r, i, error);
    return status;
}

/* Everything after the prefix of all questions, in full batches. */
static lb_status evaluate_suffixes(ask_batch *r, const float *rows, int64_t n_rows, lb_error *error) {
    lb_language *language = r->language;
    lb_status status = LB_STATUS_OK;
    llama_memory_t memory = llama_get_memory(language->ctx);
    for (int i = 0; i < r->n && status == LB_STATUS_OK; i++) {
        dialogue *t = &r->dialogues[i];
        const lb_vlm_ask *ask = &r->asks[i];
        if (language->n_prefix > 0)
            llama_memory_seq_cp(memory, 0, i + 1, -1, -1);
        int64_t next = language->n_prefix_rows;
        for (t->n_past = language->n_prefix; t->n_past < ask->n_tokens && status == LB_STATUS_OK;) {
            const float *row;
            bool last = t->n_past == ask->n_tokens - 1;
            status = picture_row(language, ask->tokens[t->n_past], rows, n_rows, &next, &row, error);
            if (status != LB_STATUS_OK)
                break;
            if (last)
                t->batch_index = language->n_batch;
            status = lb_language_push(language, ask->tokens[t->n_past], row, t->n_past, i + 1, last, error);
            t->n_past++;
            if (status == LB_STATUS_OK && language->n_batch == language->params.n_ubatch)
                status = flush(r, error);
        }
    }
    return status == LB_STATUS_OK ? flush(r, error) : status;
}

static lb_status generate(ask_batch *r, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    for (bool any = true; any && status == LB_STATUS_OK;) {
        any = false;
        const double now_s = lb_now_s();
        for (int i = 0; i < r->n && status == LB_STATUS_OK; i++) {
            dialogue *t = &r->dialogues[i];
            if (t->done)
                continue;
            if (r->asks[i].until_s > 0 && now_s > r->asks[i].until_s) {
                r->replies[i].cut = t->done = true;
                continue;
            }
            any = true;
            t->batch_index = r->language->n_batch;
            status = lb_language_push(r->language, t->next, NULL, t->n_past++, i + 1, true, error);
            if (status == LB_STATUS_OK && r->language->n_batch == r->language->params.n_ubatch)
                status = flush(r, error); /* more questions at once than a batch holds */
        }
        if (status == LB_STATUS_OK && any)
            status = flush(r, error);
    }
    return status;
}

/* The longest batch of questions from first on that fits beside the prefix; 0 when not even one does. */
static int batch_size(const lb_language *language, const lb_vlm_ask *asks, int n_asks) {
    int64_t cells = language->n_prefix;
    int n = 0;
    for (; n < n_asks && n < language->params.n_parallel; n++) {
        cells += asks[n].n_tokens - language->n_prefix + asks[n].n_new_max;
        if (cells > language->n_cells)
            break;
    }
    return n;
}

static lb_status check_ask(const lb_language *language, const lb_vlm_ask *ask, lb_error *error) {
    if (ask->n_tokens <= language->n_prefix ||
        (language->n_prefix > 0 &&
         memcmp(ask->tokens, language->prefix, (size_t)language->n_prefix * sizeof *ask->tokens) != 0))
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "a prompt that does not begin with the evaluated prefix");
    return LB_STATUS_OK;
}

lb_status lb_language_answer(lb_language *language, const lb_vlm_ask *asks, int n_asks, const float *rows,
                             int64_t n_rows, const int32_t *stop, int n_stop, lb_vlm_reply *replies, double *prompt_s,
                             double *generate_s, lb_error *error) {
    memset(replies, 0, (size_t)n_asks * sizeof *replies);
    *prompt_s = *generate_s = 0;
    dialogue *dialogues = calloc((size_t)n_asks, sizeof *dialogues);
    lb_status status = dialogues ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    for (int i = 0; i < n_asks && status == LB_STATUS_OK; i++) {
        dialogues[i].batch_index = -1;
        status = check_ask(language, &asks[i], error);
    }
    language->n_batch = 0;
    for (int done = 0; done < n_asks && status == LB_STATUS_OK;) {
        int n = batch_size(language, asks + done, n_asks - done);
        if (n == 0) {
            status = lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "a prompt of %d tokens in a KV cache of %d",
                                  asks[done].n_tokens, language->n_cells);
            break;
        }
        ask_batch r = {language, asks + done, n, stop, n_stop, replies + done, dialogues + done};
        double start = lb_now_s();
        status = evaluate_suffixes(&r, rows, n_rows, error);
        double middle = lb_now_s();
        if (status == LB_STATUS_OK)
            status = generate(&r, error);
        *prompt_s += middle - start;
        *generate_s += lb_now_s() - middle;
        for (int i = 0; i < n; i++)
            llama_memory_seq_rm(llama_get_memory(language->ctx), i + 1, -1, -1);
        done += n;
    }
    if (status == LB_STATUS_NOT_FINITE)
        forget_prefix(language, true);
    if (status != LB_STATUS_OK)
        for (int i = 0; i < n_asks; i++)
            lb_vlm_reply_free(&replies[i]);
    free(dialogues);
    return status;
}
