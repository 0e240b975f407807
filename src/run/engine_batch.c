#include "answer/letter.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/time.h"
#include "run/dialogue.h"
#include "run/engine_internal.h"
#include "run/npy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One question on its way through a batch. */
typedef struct lb_item {
    int question;   /* -1: taken out of lb_session.ready */
    lb_error error; /* status OK while it goes well */
    lb_prompt prompt;
    lb_tokens tokens;
} item;

enum { READY_MAX = 64 }; /* 100 KB each: a video may have thousands */

static void item_free(item *it) {
    lb_prompt_free(&it->prompt);
    lb_tokens_free(&it->tokens);
    *it = (item){0};
}

/* Prompt and tokens of one question, checked against the context. */
static void item_build(const lb_session *s, int question, item *it) {
    const lb_engine *engine = s->engine;
    const lb_engine_question *q = &s->questions[question];
    const lb_vlm_info *info = lb_vlm_get_info(engine->vlm);
    *it = (item){.question = question};
    lb_prompt_values values = {.n_frames = s->clip->n_frames,
                               .detections = (const char *const *)s->sight.findings.text,
                               .question = q->text,
                               .choices = q->choices,
                               .n_choices = q->n_choices};
    lb_status status = lb_prompt_fill(engine->prompt_template, &values, &it->prompt, &it->error);
    if (status == LB_STATUS_OK)
        status = lb_dialogue_tokens(engine->tokenizer, engine->system, &it->prompt, s->sight.tiles_per_frame,
                                    info->tokens_per_tile, &it->tokens, &it->error);
    if (status == LB_STATUS_OK && it->tokens.n >= (size_t)info->n_ctx_train)
        lb_error_set(&it->error, LB_STATUS_DOES_NOT_FIT,
                     "the prompt has %zu tokens, the model's context %d; take fewer frames (--num-frames) or tiles "
                     "(--max-tiles)",
                     it->tokens.n, info->n_ctx_train);
}

void lb_session_prepare(lb_session *s) {
    const int n = s->n < READY_MAX ? s->n : READY_MAX;
    s->ready = calloc((size_t)n + 1, sizeof *s->ready);
    for (int i = 0; i < n && s->ready; i++)
        item_build(s, i, &s->ready[i]);
    s->n_ready = s->ready ? n : 0;
}

int lb_session_text_tokens(lb_session *s) {
    const int batch = s->engine->params.reuse ? lb_vlm_get_info(s->engine->vlm)->n_parallel : 1;
    const int n = s->n < batch ? s->n : batch;
    int *no_tiles = calloc((size_t)s->clip->n_frames, sizeof *no_tiles), *before = s->sight.tiles_per_frame;
    item first = {0};
    int sum = 0;
    s->sight.tiles_per_frame = no_tiles;
    for (int i = 0; i < n && no_tiles; i++) {
        item it;
        item_build(s, i, &it);
        size_t shared = 0;
        while (i > 0 && shared < first.tokens.n && shared < it.tokens.n &&
               first.tokens.id[shared] == it.tokens.id[shared])
            shared++;
        sum += (int)(it.tokens.n - shared);
        if (i == 0)
            first = it;
        else
            item_free(&it);
    }
    s->sight.tiles_per_frame = before;
    item_free(&first);
    free(no_tiles);
    return sum;
}

/* From what is ready, else made now. */
static void item_take(lb_session *s, int question, item *it) {
    if (question < s->n_ready && s->ready[question].question == question) {
        *it = s->ready[question];
        s->ready[question] = (item){.question = -1};
    } else {
        item_build(s, question, it);
    }
}

/* A second look at it is possible. */
static void item_put_back(lb_session *s, item *it) {
    if (it->question < s->n_ready)
        s->ready[it->question] = *it;
    else
        item_free(it);
}

void lb_session_free(lb_session *s) {
    for (int i = 0; i < s->n_ready; i++)
        item_free(&s->ready[i]);
    free(s->ready);
    free(s->prefix);
}

/* As if the batch were the video's only one. */
static double elapsed_s(const lb_session *s) {
    return s->shared_s + (s->batch_start_s > 0 ? lb_now_s() - s->batch_start_s : 0);
}

/* What any reply to a question says, be it an answer or an error. */
static lb_engine_reply begin_reply(const lb_session *s, const item *it) {
    return (lb_engine_reply){.question = it->question,
                             .text = "",
                             .prompt = it->prompt.text ? it->prompt.text : "",
                             .n_prompt_tokens = (int)it->tokens.n,
                             .detect_s = s->sight.detect_s,
                             .encode_s = s->sight.encode_s,
                             .n_empty = s->sight.findings.n_empty,
                             .elapsed_s = elapsed_s(s),
                             .n_frames = s->clip->n_frames,
                             .fewer_crops = s->engine->find && s->max_crops < s->engine->params.max_detections,
                             .max_crops = s->max_crops};
}

static void reply_error(const lb_session *s, const item *it, const lb_error *error) {
    lb_engine_reply reply = begin_reply(s, it);
    reply.status = error->status;
    reply.message = error->message;
    reply.fallback = true;
    s->callbacks.reply(&reply, s->callbacks.user);
}

/* What all questions of the video begin with, less one token, which each must have of its own. */
void lb_session_find_prefix(lb_session *s) {
    int32_t *first = NULL;
    size_t shared = 0;
    int n_good = 0;
    for (int i = 0; i < s->n; i++) {
        item it;
        item_take(s, i, &it);
        if (it.error.status == LB_STATUS_OK && it.tokens.n > 0) {
            if (n_good++ == 0) {
                first = malloc(it.tokens.n * sizeof *first);
                shared = first ? it.tokens.n - 1 : 0;
                for (size_t k = 0; k < shared; k++)
                    first[k] = it.tokens.id[k];
            } else {
                size_t most = it.tokens.n - 1 < shared ? it.tokens.n - 1 : shared, k = 0;
                while (k < most && it.tokens.id[k] == first[k])
                    k++;
                shared = k;
            }
        }
        item_put_back(s, &it);
    }
    if (n_good < 2)
        shared = 0; /* nobody to share with: the prompt is evaluated in one go */
    size_t n_visual = 0;
    for (size_t k = 0; k < shared; k++)
        n_visual += first[k] == LB_TOKEN_VISUAL;
    bool has_pictures = n_visual == (size_t)lb_embeddings_n_rows(s->sight.pictures);
    if (n_good >= 2 && !has_pictures) {
        s->batch_size = 1; /* whole prompts side by side would need the memory of all their pictures */
        if (!s->engine->said_not_shared)
            lb_log(
                LB_LOG_WARN, "run",
                "the prompt template has the question before the frames: a video's questions share no pictures, each "
                "is evaluated whole (slower, same answers)");
        s->engine->said_not_shared = true;
    }
    s->prefix = first;
    s->n_prefix = (int)shared;
}

static lb_status dump_question(const lb_session *s, const item *it, const float *logits, lb_error *error) {
    const char *folder = s->questions[it->question].dump_dir;
    const lb_vlm_info *info = lb_vlm_get_info(s->engine->vlm);
    if (!folder)
        return LB_STATUS_OK;
    char *text = NULL;
    size_t n = 0;
    lb_status status = lb_folder_make(folder, error);
    if (status == LB_STATUS_OK)
        status = lb_dialogue_text(s->engine->system, &it->prompt, s->sight.tiles_per_frame, info->tokens_per_tile,
                                  &text, &n, error);
    if (status == LB_STATUS_OK)
        status = lb_text_write(folder, "prompt.txt", text, n, error);
    free(text);
    if (status == LB_STATUS_OK)
        status = lb_npy_write(folder, "tokens.npy", "<i4", 1, (int64_t[]){(int64_t)it->tokens.n}, it->tokens.id, error);
    if (status == LB_STATUS_OK)
        status = lb_npy_write(folder, "logits.npy", "<f4", 1, (int64_t[]){info->n_vocab}, logits, error);
    return status;
}

void lb_softmax(const float *logits, int n, float *probabilities) {
    float most = logits[0], sum = 0;
    for (int i = 1; i < n; i++)
        most = fmaxf(most, logits[i]);
    for (int i = 0; i < n; i++)
        sum += probabilities[i] = expf(logits[i] - most);
    for (int i = 0; i < n; i++)
        probabilities[i] /= sum;
}

static void reply_answer(const lb_session *s, const item *it, const lb_vlm_reply *got, double prompt_s,
                         double generate_s) {
    const lb_engine *engine = s->engine;
    const lb_engine_question *q = &s->questions[it->question];
    lb_error error = {0};
    float logits[LB_CHOICES_MAX], probabilities[LB_CHOICES_MAX];
    for (int i = 0; i < q->n_choices; i++)
        logits[i] = got->logits[engine->letter_token[i]];
    lb_softmax(logits, q->n_choices, probabilities);
    int letter = 0;
    char *text = NULL;
    if (engine->params.letter_only) {
        for (int i = 1; i < q->n_choices; i++)
            if (logits[i] > logits[letter])
                letter = i;
        text = strdup((char[2]){(char)('A' + letter), 0});
    } else {
        char *bytes = NULL;
        size_t n_bytes = 0;
        if (lb_tokenizer_decode(engine->tokenizer, got->token, (size_t)got->n_tokens, &bytes, &n_bytes, &error) ==
            LB_STATUS_OK)
            text = lb_text_clean(bytes, n_bytes);
        free(bytes);
        letter = text ? lb_letter_extract(text, q->n_choices) : -1;
    }
    if (!text && error.status == LB_STATUS_OK)
        lb_error_set(&error, LB_STATUS_OUT_OF_MEMORY, "no memory for the answer's text");
    if (error.status == LB_STATUS_OK)
        dump_question(s, it, got->logits, &error);
    if (error.status != LB_STATUS_OK) {
        reply_error(s, it, &error);
    } else {
        lb_engine_reply reply = begin_reply(s, it);
        reply.letter = letter < 0 ? 0 : letter;
        reply.fallback = letter < 0;
        reply.text = text;
        reply.n_new_tokens = got->n_tokens;
        reply.letter_logits = logits;
        reply.letter_probabilities = engine->params.letter_only ? probabilities : NULL;
        reply.prompt_s = prompt_s;
        reply.generate_s = generate_s;
        reply.cut = got->cut;
        s->callbacks.reply(&reply, s->callbacks.user);
    }
    free(text);
}

static void note_pace(lb_session *s, const lb_vlm_ask *asks, int n_asks, const lb_vlm_reply *replies, double prompt_s,
                      double generate_s) {
    lb_pace *pace = &s->engine->pace;
    int n = s->n_prefix, written = 0; /* tokens */
    for (int i = 0; i < n_asks; i++) {
        n += asks[i].n_tokens - s->n_prefix;
        written = replies[i].n_tokens > written ? replies[i].n_tokens : written;
    }
    if (!s->prefix_noted || s->n_prefix == 0)
        lb_pace_note(&pace->prompt_s, prompt_s / n);
    s->prefix_noted = true;
    if (written > 0)
        lb_pace_note(&pace->generate_s, generate_s / written);
    if (written > pace->new_tokens)
        pace->new_tokens = written;
}

/* prompt_s: with the prefix, where that had to be evaluated. */
static lb_status ask_together(lb_session *s, const lb_vlm_ask *asks, int n_asks, lb_vlm_reply *replies,
                              double *prompt_s, double *generate_s, lb_error *error) {
    lb_engine *engine = s->engine;
    const int32_t stop = lb_tokenizer_special(engine->tokenizer)->im_end;
    const double start = lb_now_s();
    lb_status status = lb_vlm_prefix(engine->vlm, s->prefix, s->n_prefix, s->sight.pictures, error);
    const double prefix_s = lb_now_s() - start;
    if (status == LB_STATUS_OK)
        status =
            lb_vlm_answer(engine->vlm, asks, n_asks, s->sight.pictures, &stop, 1, replies, prompt_s, generate_s, error);
    if (status == LB_STATUS_OK)
        lb_log(LB_LOG_INFO, "vlm", "questions=%d prefix_s=%.3f prompt_s=%.3f generate_s=%.3f", n_asks, prefix_s,
               *prompt_s, *generate_s);
    *prompt_s += prefix_s;
    if (status == LB_STATUS_OK)
        note_pace(s, asks, n_asks, replies, *prompt_s, *generate_s);
    return status;
}

/* A batch with numbers that are not finite is asked again one by one, so that only the question that they come from is
 * lost. Evaluates the items that went well so far; sets the error of all of them when the engine fails. */
static void evaluate(lb_session *s, item *items, int n) {
    lb_engine *engine = s->engine;
    const lb_vlm_info *info = lb_vlm_get_info(engine->vlm);
    lb_vlm_ask asks[n];
    lb_vlm_reply replies[n];
    int place[n], n_asks = 0;
    int64_t cells = s->n_prefix;
    const double until_s = s->clip->left_s > 0 ? s->batch_start_s - s->shared_s + s->clip->left_s : 0;
    for (int i = 0; i < n; i++) {
        if (items[i].error.status != LB_STATUS_OK)
            continue;
        int n_tokens = (int)items[i].tokens.n, room = info->n_ctx_train - n_tokens;
        int n_new = engine->params.letter_only ? 0 : engine->params.max_new_tokens;
        asks[n_asks] = (lb_vlm_ask){.tokens = items[i].tokens.id,
                                    .n_tokens = n_tokens,
                                    .n_new_max = n_new < room ? n_new : room,
                                    .until_s = until_s};
        cells += n_tokens - s->n_prefix + asks[n_asks].n_new_max;
        place[n_asks++] = i;
    }
    if (n_asks == 0)
        return;
    /* Labels or questions longer than the plan thought: half of them at a time. Follows from the texts and the plan
     * alone, so that a resumed run does the same. */
    const int planned = engine->params.vlm.layout.n_cells;
    if (planned > 0 && cells > planned && n > 1) {
        evaluate(s, items, n / 2);
        evaluate(s, items + n / 2, n - n / 2);
        return;
    }
    lb_error error = {0};
    double prompt_s = 0, generate_s = 0;
    lb_status status = lb_vlm_reserve(engine->vlm, (int)cells, &error);
    if (status == LB_STATUS_OK)
        status = ask_together(s, asks, n_asks, replies, &prompt_s, &generate_s, &error);
    const bool alone = status == LB_STATUS_NOT_FINITE && n_asks > 1;
    for (int k = 0; k < n_asks; k++) {
        item *it = &items[place[k]];
        if (alone) {
            error = (lb_error){0};
            status = ask_together(s, &asks[k], 1, &replies[k], &prompt_s, &generate_s, &error);
        }
        if (status != LB_STATUS_OK) {
            it->error = error;
            continue;
        }
        const int n_sharing = alone ? 1 : n_asks;
        if (s->questions[it->question].wanted)
            reply_answer(s, it, &replies[k], prompt_s / n_sharing, generate_s / n_sharing);
        lb_vlm_reply_free(&replies[k]);
    }
}

void lb_session_answer_batch(lb_session *s, int first, int n) {
    bool any = false;
    for (int i = 0; i < n; i++)
        any |= s->questions[first + i].wanted;
    if (!any)
        return;
    item items[n];
    for (int i = 0; i < n; i++)
        item_take(s, first + i, &items[i]);
    evaluate(s, items, n);
    for (int i = 0; i < n; i++) {
        if (items[i].error.status != LB_STATUS_OK && s->questions[first + i].wanted)
            reply_error(s, &items[i], &items[i].error);
        item_free(&items[i]);
    }
}

void lb_session_fail(const lb_session *s, int first, int n, const lb_error *error) {
    for (int i = first; i < first + n; i++) {
        item it = {.question = i};
        if (s->questions[i].wanted)
            reply_error(s, &it, error);
    }
}
