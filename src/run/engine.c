#include "run/engine_internal.h"

#include "answer/text.h"
#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "run/dialogue.h"
#include "run/planner.h"
#include "vlm/quantize.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lb_engine_params lb_engine_default_params(void) {
    const lb_find_params find = lb_find_default_params();
    return (lb_engine_params){.vlm = lb_vlm_default_params(),
                              .max_new_tokens = 512,
                              .reuse = true,
                              .box_threshold = find.box_threshold,
                              .text_threshold = find.text_threshold,
                              .max_detections = 5};
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

static lb_find_params find_params(const lb_engine_params *p) {
    lb_find_params find = lb_find_default_params();
    find.labels_path = p->labels_path;
    find.box_threshold = p->box_threshold;
    find.text_threshold = p->text_threshold;
    find.detector.n_threads = p->vlm.n_threads;
    find.detector.frame_batch = p->detector_batch;
    return find;
}

/* Phase "load". What is cheap first: a wrong template, vocabulary or label shows before gigabytes are read. */
static lb_status load(lb_engine *engine, lb_error *error) {
    const lb_engine_params *p = &engine->params;
    lb_find_params find = find_params(p);
    lb_status status = lb_prompt_template_read(p->prompt_path, &engine->prompt_template, error);
    if (status == LB_STATUS_OK && p->detector_path)
        status = lb_find_check(p->detector_path, &find, error);
    if (status == LB_STATUS_OK)
        status = engine->tokenizer ? LB_STATUS_OK : lb_tokenizer_open(p->vlm.model_path, &engine->tokenizer, error);
    if (status == LB_STATUS_OK)
        status = find_letters(engine, error);
    lb_ledger_phase(LB_PHASE_LOAD);
    if (status == LB_STATUS_OK)
        status = lb_vlm_open(&p->vlm, &engine->vlm, error);
    if (status != LB_STATUS_OK)
        return status;
    lb_vlm_memory(engine->vlm, &engine->vlm_allocated, &engine->vlm_reserved);
    const lb_vlm_layout *layout = &p->vlm.layout;
    int n_devices;
    lb_device devices[LB_DEVICES_MAX];
    status = lb_devices_find(p->vlm.device, devices, &n_devices, error);
    if (status == LB_STATUS_OK)
        memcpy(engine->device, devices, sizeof devices);
    if (status == LB_STATUS_OK && p->detector_path) {
        find.detector.device = devices[layout->vision_device];
        find.detector.rest_compute = layout->rest_vision_compute;
        find.detector.rest_weights = layout->rest_vision_weights;
        status = lb_find_open(p->detector_path, &find, &engine->find, error);
    }
    if (status != LB_STATUS_OK || layout->n_cells == 0)
        return status;
    /* planned: all that there will ever be is there, warmed up, before the first question */
    lb_engine_phase(engine, LB_PHASE_PROMPT);
    status = lb_vlm_reserve(engine->vlm, layout->n_cells, error);
    lb_engine_phase(engine, LB_PHASE_LOAD);
    lb_vlm_rest(engine->vlm);
    return status;
}

/* Weights of fewer bits, made where they are not there yet. */
static lb_status use_quantized(lb_engine *engine, int bits, lb_error *error) {
    lb_vlm_params *vlm = &engine->params.vlm;
    if (!lb_quantize_find(vlm->model_path, bits, engine->params.cache_dir, engine->quantized,
                          sizeof engine->quantized)) {
        lb_log(LB_LOG_WARN, "vlm", "making %d-bit weights, once: %s", bits, engine->quantized);
        lb_status status = lb_quantize_make(vlm->model_path, engine->quantized, bits, vlm->n_threads, error);
        if (status != LB_STATUS_OK)
            return status;
    }
    vlm->model_path = engine->quantized;
    return LB_STATUS_OK;
}

static lb_status take_plan(lb_engine *engine, const lb_plan *plan, lb_error *error) {
    if (!plan)
        return LB_STATUS_OK;
    engine->plan = malloc(sizeof *engine->plan);
    if (!engine->plan)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the plan");
    *engine->plan = *plan;
    lb_planner_apply(plan, &engine->params);
    engine->params.work = NULL; /* the caller's, for the plan alone */
    return plan->choice.weight_bits ? use_quantized(engine, plan->choice.weight_bits, error) : LB_STATUS_OK;
}

void lb_device_order_apply(const lb_device_order *order, lb_engine_params *params) {
    if (!order->names[0])
        return;
    params->vlm.device = order->names;
    if (order->n_vram > 0) {
        params->n_vram = order->n_vram;
        memcpy(params->vram, order->vram, sizeof params->vram);
    }
}

int lb_device_order_count(const lb_device_order *order) {
    int n = order->names[0] != 0;
    for (const char *at = strchr(order->names, ','); at; at = strchr(at + 1, ','))
        n++;
    return n;
}

void lb_device_order_take(const lb_device_order *all, int first, int n, lb_device_order *own) {
    *own = (lb_device_order){.n_vram = all->n_vram > 0 ? n : 0, .n_seen = all->n_seen < 0 ? -1 : n};
    const char *from = all->names;
    for (int i = 0; i < first; i++)
        from = strchr(from, ',') + 1;
    const char *to = from + strcspn(from, ",");
    for (int i = 1; i < n; i++)
        to += 1 + strcspn(to + 1, ",");
    snprintf(own->names, sizeof own->names, "%.*s", (int)(to - from), from);
    for (int i = 0; i < own->n_vram; i++)
        own->vram[i] = all->vram[first + i];
}

lb_status lb_engine_check_system(const lb_engine_params *params, lb_error *error) {
    return params->system && lb_text_first_broken(params->system)
               ? lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--system: the system message is not UTF-8")
               : LB_STATUS_OK;
}

lb_status lb_engine_open(const lb_engine_params *params, const lb_plan *plan, lb_engine **out, lb_error *error) {
    *out = NULL;
    lb_engine *engine = calloc(1, sizeof *engine);
    if (!engine) {
        lb_tokenizer_free(params->tokenizer);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    }
    engine->params = *params;
    engine->tokenizer = params->tokenizer; /* taken over, also when something fails */
    engine->params.tokenizer = NULL;
    engine->system = strdup(params->system ? params->system : lb_system_message);
    lb_status status = lb_engine_check_system(params, error);
    if (status == LB_STATUS_OK && !engine->system)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    if (status == LB_STATUS_OK)
        status = take_plan(engine, plan, error);
    if (status == LB_STATUS_OK)
        status = load(engine, error);
    if (status == LB_STATUS_OK && params->deadlines)
        status = lb_engine_measure_pace(engine, params->work, error);
    if (status != LB_STATUS_OK)
        lb_engine_free(engine);
    else
        *out = engine;
    return status;
}

void lb_engine_free(lb_engine *engine) {
    if (!engine)
        return;
    lb_find_free(engine->find);
    lb_vlm_free(engine->vlm);
    lb_tokenizer_free(engine->tokenizer);
    lb_prompt_template_free(engine->prompt_template);
    free(engine->system);
    free(engine->plan);
    free(engine);
}

const lb_vlm *lb_engine_vlm(const lb_engine *engine) {
    return engine->vlm;
}

const lb_preprocess_params *lb_engine_preprocess(const lb_engine *engine) {
    return engine->find ? lb_find_preprocess(engine->find) : NULL;
}

void lb_engine_vision(const lb_engine *engine, char *text, size_t n) {
    snprintf(text, n, "tiles %d frames %d boxes %d", lb_vlm_get_info(engine->vlm)->largest_tile_batch,
             engine->params.detector_batch, engine->find ? engine->params.max_detections : 0);
}

void lb_engine_vlm_memory(const lb_engine *engine, size_t *allocated, size_t *reserved) {
    *allocated = engine->vlm_allocated;
    *reserved = engine->vlm_reserved;
}

/* Phases "detect" and "encode", unless that is known. kept: the cache's, to be released. */
static lb_status see(lb_session *s, lb_sight **kept, lb_error *error) {
    const lb_engine_clip *clip = s->clip;
    lb_cache *cache = s->engine->params.cache;
    *kept = clip->key ? lb_cache_get(cache, clip->key) : NULL;
    if (*kept) {
        s->sight = **kept;
        s->sight.detect_s = s->sight.encode_s = 0;
        return LB_STATUS_OK;
    }
    if (clip->seen)
        return lb_sight_read(s->engine->vlm, clip->seen, clip->n_seen, clip->n_frames, &s->sight, error);
    lb_status status = lb_session_hurry(s, error);
    if (status == LB_STATUS_OK && (s->max_crops > 0 || s->clip->left_s == 0))
        status = lb_session_detect(s, error);
    if (status == LB_STATUS_OK)
        status = lb_session_hurry_crops(s, error);
    if (status == LB_STATUS_OK)
        status = lb_session_encode(s, error);
    if (status == LB_STATUS_OK)
        lb_session_note_sight(s);
    return status;
}

static void free_kept(void *value) {
    lb_sight_free(value);
    free(value);
}

/* Into the cache, where room was reserved for it; else it ends here. */
static void keep(lb_session *s, lb_status status) {
    lb_cache *cache = s->engine->params.cache;
    lb_sight *kept = s->reserved && status == LB_STATUS_OK ? malloc(sizeof *kept) : NULL;
    if (kept)
        *kept = s->sight;
    if (s->reserved && s->sight.pictures)
        lb_embeddings_own(s->sight.pictures);
    if (kept && lb_cache_put(cache, s->clip->key, kept, s->reserved, free_kept)) {
        lb_cache_release(cache, kept);
        return;
    }
    free(kept);
    lb_sight_free(&s->sight);
    if (s->reserved)
        lb_cache_unreserve(cache, s->reserved);
}

bool lb_engine_knows(const lb_engine *engine, const char *key) {
    void *kept = lb_cache_get(engine->params.cache, key);
    lb_cache_release(engine->params.cache, kept);
    return kept != NULL;
}

static void *show(void *user) {
    const lb_session *s = user;
    s->callbacks.seen(&s->sight, s->callbacks.user);
    return NULL;
}

void lb_engine_answer(lb_engine *engine, const lb_engine_clip *clip, const lb_engine_question *questions, int n,
                      lb_engine_callbacks callbacks) {
    lb_session s = {.engine = engine,
                    .clip = clip,
                    .questions = questions,
                    .n = n,
                    .callbacks = callbacks,
                    .start_s = lb_now_s(),
                    .max_crops = engine->find ? engine->params.max_detections : 0};
    lb_error error = {0};
    lb_sight *kept;
    pthread_t shower;
    lb_status status = see(&s, &kept, &error);
    s.shared_s = lb_now_s() - s.start_s;
    const bool shown = status == LB_STATUS_OK && callbacks.seen && s.sight.pictures && !kept && !clip->seen &&
                       !s.hurried && pthread_create(&shower, NULL, show, &s) == 0;
    s.batch_size = engine->params.reuse ? lb_vlm_get_info(engine->vlm)->n_parallel : 1;
    if (status == LB_STATUS_OK && s.sight.pictures && engine->params.reuse)
        lb_session_find_prefix(&s);
    for (int first = 0; first < n; first += s.batch_size) {
        if (callbacks.keep_going && !callbacks.keep_going(callbacks.user))
            break;
        int m = n - first < s.batch_size ? n - first : s.batch_size;
        s.batch_start_s = lb_now_s();
        if (status == LB_STATUS_OK)
            lb_session_answer_batch(&s, first, m);
        else
            lb_session_fail(&s, first, m, &error);
    }
    if (shown)
        pthread_join(shower, NULL);
    lb_session_free(&s);
    lb_session_hurry_end(&s);
    if (kept)
        lb_cache_release(engine->params.cache, kept);
    else
        keep(&s, status);
}
