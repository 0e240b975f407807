#include "run/engine.h"

#include "answer/letter.h"
#include "answer/prompt.h"
#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "run/dialogue.h"
#include "run/npy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lb_engine {
    lb_engine_params params;
    char *system;
    lb_vlm *vlm;
    lb_tokenizer *tokenizer;
    lb_prompt_template *prompt_template;
    int32_t letter_token[LB_CHOICES_MAX]; /* "A", "B" ... as the first token of an answer */
    bool said_not_shared;
    lb_embeddings *kept; /* of the clip kept_id */
    uint64_t kept_id;
};

/* One question on its way through a batch. */
typedef struct item {
    int question;
    lb_error error; /* status OK while it goes well */
    lb_prompt prompt;
    lb_tokens tokens;
} item;

/* One call of lb_engine_answer. */
typedef struct session {
    lb_engine *engine;
    const lb_engine_clip *clip;
    const lb_engine_question *questions;
    int n;
    lb_engine_callbacks callbacks;
    lb_embeddings *pictures;
    int32_t *prefix;
    int n_prefix;
    double encode_s, prefix_s;
    int batch_size;
} session;

lb_engine_params lb_engine_default_params(void) {
    return (lb_engine_params){.vlm = lb_vlm_default_params(), .max_new_tokens = 512, .reuse = true};
}

static lb_status find_letters(lb_engine *engine, lb_error *error) {
    for (int i = 0; i < LB_CHOICES_MAX; i++) {
        char letter = (char)('A' + i);
        lb_tokens tokens = {0};
        lb_status status = lb_tokenizer_add_text(engine->tokenizer, &letter, 1, &tokens, error);
        if (status == LB_STATUS_OK && tokens.n != 1)
            status = lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: its vocabulary has not '%c' as one token",
                                  engine->params.vlm.model_path, letter);
        if (status == LB_STATUS_OK)
            engine->letter_token[i] = tokens.id[0];
        lb_tokens_free(&tokens);
        if (status != LB_STATUS_OK)
            return status;
    }
    return LB_STATUS_OK;
}

lb_status lb_engine_open(const lb_engine_params *params, lb_engine **out, lb_error *error) {
    *out = NULL;
    if (params->system && lb_text_first_broken(params->system))
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--system: the system message is not UTF-8");
    lb_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    engine->params = *params;
    engine->system = strdup(params->system ? params->system : lb_system_message);
    lb_status status = engine->system ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    /* what is cheap first: a wrong template or vocabulary shows before gigabytes are read */
    if (status == LB_STATUS_OK)
        status = lb_prompt_template_read(params->prompt_path, &engine->prompt_template, error);
    if (status == LB_STATUS_OK)
        status = lb_tokenizer_open(params->vlm.model_path, &engine->tokenizer, error);
    if (status == LB_STATUS_OK)
        status = find_letters(engine, error);
    if (status == LB_STATUS_OK)
        status = lb_vlm_open(&params->vlm, &engine->vlm, error);
    if (status != LB_STATUS_OK)
        lb_engine_free(engine);
    else
        *out = engine;
    return status;
}

void lb_engine_free(lb_engine *engine) {
    if (!engine)
        return;
    lb_embeddings_free(engine->kept);
    lb_vlm_free(engine->vlm);
    lb_tokenizer_free(engine->tokenizer);
    lb_prompt_template_free(engine->prompt_template);
    free(engine->system);
    free(engine);
}

const lb_vlm *lb_engine_vlm(const lb_engine *engine) {
    return engine->vlm;
}

static void item_free(item *it) {
    lb_prompt_free(&it->prompt);
    lb_tokens_free(&it->tokens);
    *it = (item){0};
}

/* Prompt and tokens of one question, checked against the context. */
static void item_build(const session *s, int question, item *it) {
    const lb_engine *engine = s->engine;
    const lb_engine_question *q = &s->questions[question];
    const lb_vlm_info *info = lb_vlm_get_info(engine->vlm);
    *it = (item){.question = question};
    lb_prompt_values values = {
        .n_frames = s->clip->n_frames, .question = q->text, .choices = q->choices, .n_choices = q->n_choices};
    lb_status status = lb_prompt_fill(engine->prompt_template, &values, &it->prompt, &it->error);
    if (status == LB_STATUS_OK)
        status = lb_dialogue_tokens(engine->tokenizer, engine->system, &it->prompt, s->clip->tiles_per_frame,
                                    info->tokens_per_tile, &it->tokens, &it->error);
    if (status == LB_STATUS_OK && it->tokens.n >= (size_t)info->n_ctx_train)
        lb_error_set(&it->error, LB_STATUS_DOES_NOT_FIT,
                     "the prompt has %zu tokens, the model's context %d; take fewer frames (--num-frames) or tiles "
                     "(--max-tiles)",
                     it->tokens.n, info->n_ctx_train);
}

static void reply_error(const session *s, const item *it, const lb_error *error) {
    lb_engine_reply reply = {.question = it->question,
                             .status = error->status,
                             .message = error->message,
                             .fallback = true,
                             .text = "",
                             .prompt = it->prompt.text ? it->prompt.text : "",
                             .n_prompt_tokens = (int)it->tokens.n,
                             .encode_s = s->encode_s};
    s->callbacks.reply(&reply, s->callbacks.user);
}

/* What all questions of the video begin with, less one token, which each must have of its own. */
static void find_prefix(session *s) {
    lb_tokens first = {0};
    size_t shared = 0;
    int n_good = 0;
    for (int i = 0; i < s->n; i++) {
        item it;
        item_build(s, i, &it);
        if (it.error.status == LB_STATUS_OK && it.tokens.n > 0) {
            if (n_good++ == 0) {
                first = it.tokens;
                it.tokens = (lb_tokens){0};
                shared = first.n - 1;
            } else {
                size_t most = it.tokens.n - 1 < shared ? it.tokens.n - 1 : shared, k = 0;
                while (k < most && it.tokens.id[k] == first.id[k])
                    k++;
                shared = k;
            }
        }
        item_free(&it);
    }
    if (n_good < 2)
        shared = 0; /* nobody to share with: the prompt is evaluated in one go */
    size_t n_visual = 0;
    for (size_t k = 0; k < shared; k++)
        n_visual += first.id[k] == LB_TOKEN_VISUAL;
    bool has_pictures = n_visual == (size_t)lb_embeddings_n_rows(s->pictures);
    if (n_good >= 2 && !has_pictures) {
        s->batch_size = 1; /* whole prompts side by side would need the memory of all their pictures */
        if (!s->engine->said_not_shared)
            lb_log(
                LB_LOG_WARN, "run",
                "the prompt template has the question before the frames: a video's questions share no pictures, each "
                "is evaluated whole (slower, same answers)");
        s->engine->said_not_shared = true;
    }
    s->prefix = first.id; /* taken over */
    s->n_prefix = (int)shared;
}

static lb_status dump_question(const session *s, const item *it, const float *logits, lb_error *error) {
    const char *folder = s->questions[it->question].dump_dir;
    const lb_vlm_info *info = lb_vlm_get_info(s->engine->vlm);
    if (!folder)
        return LB_STATUS_OK;
    char *text = NULL;
    size_t n = 0;
    lb_status status = lb_folder_make(folder, error);
    if (status == LB_STATUS_OK)
        status = lb_dialogue_text(s->engine->system, &it->prompt, s->clip->tiles_per_frame, info->tokens_per_tile,
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

static void reply_answer(const session *s, const item *it, const lb_vlm_reply *got, double prompt_s,
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
        lb_engine_reply reply = {.question = it->question,
                                 .letter = letter < 0 ? 0 : letter,
                                 .fallback = letter < 0,
                                 .text = text,
                                 .prompt = it->prompt.text,
                                 .n_prompt_tokens = (int)it->tokens.n,
                                 .n_new_tokens = got->n_tokens,
                                 .letter_logits = logits,
                                 .letter_probabilities = engine->params.letter_only ? probabilities : NULL,
                                 .encode_s = s->encode_s,
                                 .prompt_s = prompt_s,
                                 .generate_s = generate_s};
        s->callbacks.reply(&reply, s->callbacks.user);
    }
    free(text);
}

/* Evaluates the items that went well so far; sets the error of all of them when the engine fails. */
static void evaluate(session *s, item *items, int n) {
    lb_engine *engine = s->engine;
    const lb_vlm_info *info = lb_vlm_get_info(engine->vlm);
    lb_vlm_ask asks[n];
    lb_vlm_reply replies[n];
    int place[n], n_asks = 0;
    int64_t cells = s->n_prefix;
    for (int i = 0; i < n; i++) {
        if (items[i].error.status != LB_STATUS_OK)
            continue;
        int n_tokens = (int)items[i].tokens.n, room = info->n_ctx_train - n_tokens;
        int n_new = engine->params.letter_only ? 0 : engine->params.max_new_tokens;
        asks[n_asks] = (lb_vlm_ask){items[i].tokens.id, n_tokens, n_new < room ? n_new : room};
        cells += n_tokens - s->n_prefix + asks[n_asks].n_new_max;
        place[n_asks++] = i;
    }
    if (n_asks == 0)
        return;
    lb_error error = {0};
    double prompt_s = 0, generate_s = 0, start = lb_now_s();
    int32_t stop = lb_tokenizer_special(engine->tokenizer)->im_end;
    lb_status status = lb_vlm_reserve(engine->vlm, (int)cells, &error);
    if (status == LB_STATUS_OK)
        status = lb_vlm_prefix(engine->vlm, s->prefix, s->n_prefix, s->pictures, &error);
    double prefix_s = lb_now_s() - start;
    if (status == LB_STATUS_OK)
        status =
            lb_vlm_answer(engine->vlm, asks, n_asks, s->pictures, &stop, 1, replies, &prompt_s, &generate_s, &error);
    if (status == LB_STATUS_OK)
        lb_log(LB_LOG_INFO, "vlm", "questions=%d prefix_s=%.3f prompt_s=%.3f generate_s=%.3f", n_asks, prefix_s,
               prompt_s, generate_s);
    for (int k = 0; k < n_asks; k++) {
        item *it = &items[place[k]];
        if (status != LB_STATUS_OK) {
            it->error = error;
            continue;
        }
        if (s->questions[it->question].wanted)
            reply_answer(s, it, &replies[k], (prefix_s + prompt_s) / n_asks, generate_s / n_asks);
        lb_vlm_reply_free(&replies[k]);
    }
}

static void answer_batch(session *s, int first, int n) {
    bool any = false;
    for (int i = 0; i < n; i++)
        any |= s->questions[first + i].wanted;
    if (!any)
        return;
    item items[n];
    for (int i = 0; i < n; i++)
        item_build(s, first + i, &items[i]);
    evaluate(s, items, n);
    for (int i = 0; i < n; i++) {
        if (items[i].error.status != LB_STATUS_OK && s->questions[first + i].wanted)
            reply_error(s, &items[i], &items[i].error);
        item_free(&items[i]);
    }
}

static int count_tiles(const lb_engine_clip *clip) {
    int n_tiles = 0;
    for (int i = 0; i < clip->n_frames; i++)
        n_tiles += clip->tiles_per_frame[i];
    return n_tiles;
}

static lb_status encode(session *s, lb_error *error) {
    const int n_tiles = count_tiles(s->clip);
    double start = lb_now_s();
    lb_engine *engine = s->engine;
    lb_embeddings *kept = engine->kept;
    engine->kept = NULL;
    if (kept && s->clip->id != 0 && s->clip->id == engine->kept_id) {
        s->pictures = kept;
        return LB_STATUS_OK;
    }
    lb_embeddings_free(kept); /* before the next is made: its memory serves again */
    const size_t side = (size_t)lb_vlm_get_info(engine->vlm)->image_size;
    const uint8_t *tile[n_tiles];
    for (int i = 0; i < n_tiles; i++)
        tile[i] = s->clip->tiles + (size_t)i * side * side * 3;
    lb_status status = lb_vlm_encode(engine->vlm, &(lb_tile_list){.tile = tile, .n = n_tiles}, &s->pictures, error);
    s->encode_s = lb_now_s() - start;
    if (status == LB_STATUS_OK && s->clip->dump_dir) {
        status = lb_folder_make(s->clip->dump_dir, error);
        if (status == LB_STATUS_OK)
            status =
                lb_npy_write(s->clip->dump_dir, "embeddings.npy", "<f4", 2,
                             (int64_t[]){lb_embeddings_n_rows(s->pictures), lb_vlm_get_info(s->engine->vlm)->n_embd},
                             lb_embeddings_rows(s->pictures), error);
    }
    return status;
}

void lb_engine_answer(lb_engine *engine, const lb_engine_clip *clip, const lb_engine_question *questions, int n,
                      lb_engine_callbacks callbacks) {
    session s = {.engine = engine, .clip = clip, .questions = questions, .n = n, .callbacks = callbacks};
    lb_error error = {0};
    /* pictures that no prompt has room for are not encoded: each prompt says so for itself */
    const lb_vlm_info *info = lb_vlm_get_info(engine->vlm);
    s.batch_size = engine->params.reuse ? info->n_parallel : 1;
    const bool room = (int64_t)count_tiles(clip) * info->tokens_per_tile < info->n_ctx_train;
    lb_status status = room ? encode(&s, &error) : LB_STATUS_OK;
    if (room && status == LB_STATUS_OK && engine->params.reuse)
        find_prefix(&s);
    for (int first = 0; first < n; first += s.batch_size) {
        if (callbacks.keep_going && !callbacks.keep_going(callbacks.user))
            break;
        int m = n - first < s.batch_size ? n - first : s.batch_size;
        if (status == LB_STATUS_OK) {
            answer_batch(&s, first, m);
            continue;
        }
        for (int i = first; i < first + m; i++) {
            item it = {.question = i};
            if (questions[i].wanted)
                reply_error(&s, &it, &error);
        }
    }
    free(s.prefix);
    if (clip->id != 0) {
        engine->kept = s.pictures;
        engine->kept_id = clip->id;
    } else {
        lb_embeddings_free(s.pictures);
    }
}
