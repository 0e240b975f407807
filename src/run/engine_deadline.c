/* --deadline: what of a video is looked at, so that the answer comes in time. Speeds are measured when the models are
 * opened and after each video (pace.h); what is left out is left out before the work that it would cost. */
#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "memory/ledger.h"
#include "run/engine_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double left_s(const lb_session *s) {
    return s->clip->left_s - (lb_now_s() - s->start_s);
}

static int tiles_of_frame(const lb_engine_clip *clip) {
    int most = 1;
    for (int i = 0; i < clip->n_frames; i++)
        if (clip->tiles_per_frame[i] > most)
            most = clip->tiles_per_frame[i];
    return most;
}

static lb_pace_load load_of(lb_session *s) {
    const lb_engine_params *p = &s->engine->params;
    return (lb_pace_load){.n_frames = s->clip->n_frames,
                          .tiles_per_frame = tiles_of_frame(s->clip),
                          .crops_per_frame = s->engine->find ? p->max_detections : 0,
                          .detector_frames = s->engine->find ? s->clip->n_frames : 0,
                          .tokens_per_tile = lb_vlm_get_info(s->engine->vlm)->tokens_per_tile,
                          .text_tokens = lb_session_text_tokens(s),
                          .max_new_tokens = p->letter_only ? 0 : p->max_new_tokens};
}

/* Place k of n in a video of n_frames: spread evenly, the last frame always among them. */
static int pick(int k, int n, int n_frames) {
    return (k + 1) * n_frames / n - 1;
}

/* The clip with n of its frames, in memory of its own. */
static lb_status take_frames(lb_session *s, int n, lb_error *error) {
    const lb_engine_clip *from = s->clip;
    const size_t side = (size_t)lb_vlm_get_info(s->engine->vlm)->image_size, tile = side * side * 3;
    const size_t frame = from->frames ? (size_t)from->width * (size_t)from->height * 3 : 0;
    const size_t picture = (size_t)from->resized.width * (size_t)from->resized.height * 3;
    const size_t most = (size_t)n * ((size_t)tiles_of_frame(from) * tile + frame + picture);
    int *ints = calloc((size_t)n * 2, sizeof *ints);
    int64_t *index = calloc((size_t)n, sizeof *index);
    double *time_s = calloc((size_t)n, sizeof *time_s);
    uint8_t *data = malloc(most);
    s->thin_memory[0] = ints;
    s->thin_memory[1] = index;
    s->thin_memory[2] = time_s;
    s->thin_memory[3] = data;
    if (!ints || !index || !time_s || !data)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d of %d frames", n, from->n_frames);
    s->thin_bytes = most;
    lb_ledger_add(LB_COMPONENT_FRAMES, most);
    uint8_t *tiles = data, *frames = data + (size_t)n * (size_t)tiles_of_frame(from) * tile;
    uint8_t *pictures = frames + (size_t)n * frame;
    lb_engine_clip *to = &s->thin;
    *to = *from;
    to->n_frames = n;
    to->tiles_per_frame = ints;
    to->tiles = tiles;
    to->index = index;
    to->time_s = time_s;
    if (from->frames) {
        to->frames = frames;
        to->resized.data = pictures;
        to->resized.of_frame = ints + n;
        to->resized.n = 0;
    }
    const uint8_t *own = from->tiles;
    for (int i = 0, k = 0, last_picture = -1; i < from->n_frames && k < n; i++) {
        const size_t bytes = (size_t)from->tiles_per_frame[i] * tile;
        if (i == pick(k, n, from->n_frames)) {
            ints[k] = from->tiles_per_frame[i];
            memcpy(tiles, own, bytes);
            tiles += bytes;
            if (from->index) {
                index[k] = from->index[i];
                time_s[k] = from->time_s[i];
            }
            if (from->frames) {
                memcpy(frames + (size_t)k * frame, from->frames + (size_t)i * frame, frame);
                if (from->resized.of_frame[i] != last_picture) {
                    last_picture = from->resized.of_frame[i];
                    memcpy(pictures + (size_t)to->resized.n++ * picture,
                           from->resized.data + (size_t)last_picture * picture, picture);
                }
                ints[n + k] = to->resized.n - 1;
            }
            k++;
        }
        own += bytes;
    }
    s->clip = to;
    return LB_STATUS_OK;
}

lb_status lb_session_hurry(lb_session *s, lb_error *error) {
    if (s->clip->left_s == 0 || s->clip->seen)
        return LB_STATUS_OK;
    const lb_pace_load load = load_of(s);
    const lb_pace_share share = lb_pace_choose(&s->engine->pace, &load, left_s(s));
    s->max_crops = share.crops_per_frame;
    if (share.n_frames == load.n_frames && share.crops_per_frame == load.crops_per_frame)
        return LB_STATUS_OK;
    s->hurried = true;
    lb_log(LB_LOG_INFO, "run", "deadline left_s=%.2f full_s=%.2f frames=%d of %d crops=%d of %d", left_s(s),
           lb_pace_seconds(&s->engine->pace, &load, (lb_pace_share){load.n_frames, load.crops_per_frame}),
           share.n_frames, load.n_frames, share.crops_per_frame, load.crops_per_frame);
    return share.n_frames < load.n_frames ? take_frames(s, share.n_frames, error) : LB_STATUS_OK;
}

/* The detector may have taken longer than it was thought to, and has found less than it might have. */
lb_status lb_session_hurry_crops(lb_session *s, lb_error *error) {
    lb_findings *findings = &s->sight.findings;
    if (s->clip->left_s == 0 || s->clip->seen || findings->n_frames == 0)
        return LB_STATUS_OK;
    lb_pace_load load = load_of(s);
    load.detector_frames = 0;
    lb_pace pace = s->engine->pace;
    pace.crops = 0; /* what there is, not what there may be */
    int most = 0;
    for (int i = 0; i < findings->n_frames; i++)
        most = findings->frame[i].n > most ? findings->frame[i].n : most;
    /* 0 would be: not known */
    if (s->max_crops == s->engine->params.max_detections)
        lb_pace_note(&s->engine->pace.crops, fmax((double)findings->n_boxes / findings->n_frames, 0.5));
    int crops = most;
    for (; crops > 0; crops--) {
        int n = 0; /* boxes left in all frames */
        for (int i = 0; i < findings->n_frames; i++)
            n += findings->frame[i].n < crops ? findings->frame[i].n : crops;
        load.crops_per_frame = (n + findings->n_frames - 1) / findings->n_frames;
        const lb_pace_share all = {load.n_frames, load.crops_per_frame};
        const lb_pace_share share = lb_pace_choose(&pace, &load, left_s(s));
        if (share.n_frames == all.n_frames && share.crops_per_frame == all.crops_per_frame)
            break;
    }
    if (crops == most)
        return LB_STATUS_OK;
    s->hurried = true;
    s->max_crops = crops;
    return lb_findings_cut(findings, lb_find_labels(s->engine->find), crops, error);
}

void lb_session_hurry_end(lb_session *s) {
    for (size_t i = 0; i < sizeof s->thin_memory / sizeof s->thin_memory[0]; i++)
        free(s->thin_memory[i]);
    if (s->thin_bytes)
        lb_ledger_sub(LB_COMPONENT_FRAMES, s->thin_bytes);
}

void lb_session_note_sight(lb_session *s) {
    lb_pace *pace = &s->engine->pace;
    if (s->clip->seen)
        return;
    if (s->sight.findings.n_frames > 0 && s->clip->resized.n > 0)
        lb_pace_note(&pace->detect_s, s->sight.detect_s / s->clip->resized.n);
    if (s->sight.n_tiles > 0)
        lb_pace_note(&pace->encode_s, s->sight.encode_s / s->sight.n_tiles);
}

/* At opening: one picture and a few tiles and tokens of nothing, twice, since what is done for the first time takes
 * longer. */
enum { ROUNDS = 2, TOKENS = 128 };

static lb_status measure_detector(lb_engine *engine, int width, int height, lb_error *error) {
    const lb_preprocess_params *edges = lb_find_preprocess(engine->find);
    lb_findings findings;
    lb_resized resized = {.n = 1, .of_frame = (const int[]){0}};
    lb_status status = lb_preprocess_size(edges, width, height, &resized.width, &resized.height, error);
    if (status != LB_STATUS_OK)
        return status;
    uint8_t *data = calloc((size_t)resized.width * (size_t)resized.height, 3);
    if (!data)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a picture");
    resized.data = data;
    for (int i = 0; i < ROUNDS && status == LB_STATUS_OK; i++) {
        const double start = lb_now_s();
        lb_vlm_rest(engine->vlm);
        status =
            lb_findings_make(engine->find, &resized, 1, width, height, engine->params.max_detections, &findings, error);
        lb_find_rest(engine->find);
        engine->pace.detect_s = lb_now_s() - start;
        lb_findings_free(&findings);
    }
    free(data);
    return status;
}

static lb_status measure_encoder(lb_engine *engine, lb_error *error) {
    const lb_vlm_info *info = lb_vlm_get_info(engine->vlm);
    const int n = info->largest_tile_batch > 0 ? info->largest_tile_batch : 1;
    uint8_t *tile = calloc((size_t)info->image_size * (size_t)info->image_size, 3);
    const uint8_t **tiles = calloc((size_t)n, sizeof *tiles);
    lb_status status = tile && tiles ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    for (int i = 0; i < n && tiles; i++)
        tiles[i] = tile;
    for (int i = 0; i < ROUNDS && status == LB_STATUS_OK; i++) {
        const lb_tile_list list = {.tile = tiles, .n = n};
        lb_embeddings *embeddings = NULL;
        const double start = lb_now_s();
        status = lb_vlm_encode(engine->vlm, &list, &embeddings, error);
        engine->pace.encode_s = (lb_now_s() - start) / n;
        lb_embeddings_free(embeddings);
    }
    free(tiles);
    free(tile);
    return status;
}

static lb_status measure_language(lb_engine *engine, lb_error *error) {
    int32_t token[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        token[i] = engine->letter_token[i % LB_CHOICES_MAX];
    lb_status status = LB_STATUS_OK;
    for (int i = 0; i < ROUNDS && status == LB_STATUS_OK; i++) {
        const lb_vlm_ask ask = {.tokens = token, .n_tokens = TOKENS, .n_new_max = 2};
        lb_vlm_reply reply;
        double prompt_s, generate_s;
        status = lb_vlm_reserve(engine->vlm, TOKENS + 2, error);
        if (status == LB_STATUS_OK)
            status = lb_vlm_prefix(engine->vlm, NULL, 0, NULL, error);
        if (status == LB_STATUS_OK)
            status = lb_vlm_answer(engine->vlm, &ask, 1, NULL, NULL, 0, &reply, &prompt_s, &generate_s, error);
        if (status != LB_STATUS_OK)
            break;
        engine->pace.prompt_s = prompt_s / TOKENS;
        engine->pace.generate_s = generate_s / 2;
        lb_vlm_reply_free(&reply);
    }
    return status;
}

lb_status lb_engine_measure_pace(lb_engine *engine, const lb_engine_work *work, lb_error *error) {
    const bool sized = work && work->picture_width > 0;
    lb_status status = LB_STATUS_OK;
    lb_engine_phase(engine, LB_PHASE_DETECT);
    if (engine->find)
        status =
            measure_detector(engine, sized ? work->picture_width : 1920, sized ? work->picture_height : 1080, error);
    lb_engine_phase(engine, LB_PHASE_ENCODE);
    if (status == LB_STATUS_OK)
        status = measure_encoder(engine, error);
    lb_engine_phase(engine, LB_PHASE_PROMPT);
    if (status == LB_STATUS_OK)
        status = measure_language(engine, error);
    lb_engine_phase(engine, LB_PHASE_LOAD);
    lb_vlm_rest(engine->vlm);
    if (status == LB_STATUS_OK)
        lb_log(LB_LOG_INFO, "run", "pace detect_s=%.4f encode_s=%.4f prompt_s=%.6f generate_s=%.4f",
               engine->pace.detect_s, engine->pace.encode_s, engine->pace.prompt_s, engine->pace.generate_s);
    return status;
}
