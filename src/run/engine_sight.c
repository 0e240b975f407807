#include "base/error.h"
#include "base/file.h"
#include "base/time.h"
#include "run/crops.h"
#include "run/engine_internal.h"
#include "run/npy.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CROP_THREADS = 4 }; /* 40 crops take some 20 ms with them: hidden behind the first frames' tiles */

static lb_status dump_detections(const lb_session *s, lb_error *error) {
    const lb_engine_clip *clip = s->clip;
    json_t *frames = json_array();
    for (int i = 0; i < clip->n_frames; i++)
        json_array_append_new(frames, lb_findings_json(&s->sight.findings.frame[i], lb_find_labels(s->engine->find),
                                                       clip->index[i], clip->time_s[i], clip->width, clip->height));
    json_t *whole = json_array_size(frames) == (size_t)clip->n_frames ? json_pack("{s:O}", "frames", frames) : NULL;
    char *text = whole ? json_dumps(whole, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    lb_status status = text ? lb_folder_make(clip->dump_dir, error)
                            : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for detections.json");
    if (status == LB_STATUS_OK)
        status = lb_text_write(clip->dump_dir, "detections.json", text, strlen(text), error);
    free(text);
    json_decref(whole);
    json_decref(frames);
    return status;
}

lb_status lb_session_detect(lb_session *s, lb_error *error) {
    lb_engine *engine = s->engine;
    const lb_engine_clip *clip = s->clip;
    if (!engine->find)
        return LB_STATUS_OK;
    double start = lb_now_s();
    lb_engine_phase(engine, LB_PHASE_DETECT);
    lb_vlm_rest(engine->vlm);
    lb_status status = lb_findings_make(engine->find, &clip->resized, clip->n_frames, clip->width, clip->height,
                                        engine->params.max_detections, &s->sight.findings, error);
    lb_engine_phase(engine, LB_PHASE_DETECT); /* notes what is used before it rests */
    lb_find_rest(engine->find);
    s->sight.detect_s = lb_now_s() - start;
    return status == LB_STATUS_OK && clip->dump_dir ? dump_detections(s, error) : status;
}

/* A video's tiles where they lie, in the order of the reference: frame by frame, its own, then its crops. */
typedef struct tile_row {
    const uint8_t **tile; /* [n] */
    int *crop;            /* [n] which crop it is; -1: a tile of the frame itself */
    lb_crops *crops;
} tile_row;

static lb_status wait_for_tile(int i, void *user, lb_error *error) {
    const tile_row *row = user;
    return row->crop[i] < 0 ? LB_STATUS_OK : lb_crops_wait(row->crops, row->crop[i], error);
}

/* A frame that repeats the one before has the same boxes, so the same crops: they are cut once. */
static bool shares_crops(const lb_engine_clip *clip, int frame) {
    return frame > 0 && clip->resized.of_frame[frame] == clip->resized.of_frame[frame - 1];
}

static lb_status start_crops(const lb_session *s, int size, lb_crops **crops, lb_error *error) {
    const lb_engine_clip *clip = s->clip;
    const lb_findings *findings = &s->sight.findings;
    const size_t row = (size_t)clip->width * 3;
    lb_crop *crop = calloc((size_t)findings->n_boxes + 1, sizeof *crop);
    if (!crop)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d crops", findings->n_boxes);
    int n = 0;
    for (int i = 0; i < findings->n_frames; i++)
        for (int k = 0; k < findings->frame[i].n && !shares_crops(clip, i); k++, n++) {
            crop[n].frame =
                (lb_image_view){clip->frames + (size_t)i * row * (size_t)clip->height, clip->width, clip->height, row};
            lb_detection_pixels(&findings->frame[i].item[k], crop[n].box);
        }
    lb_status status = lb_crops_start(crop, n, size, CROP_THREADS, crops, error);
    free(crop);
    return status;
}

static lb_status lay_out(lb_session *s, int size, tile_row *row, lb_error *error) {
    const lb_engine_clip *clip = s->clip;
    lb_sight *sight = &s->sight;
    sight->tiles_per_frame = calloc((size_t)clip->n_frames, sizeof *sight->tiles_per_frame);
    if (!sight->tiles_per_frame)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    sight->n_tiles = 0;
    for (int i = 0; i < clip->n_frames; i++) {
        sight->tiles_per_frame[i] =
            clip->tiles_per_frame[i] + (sight->findings.n_frames ? sight->findings.frame[i].n : 0);
        sight->n_tiles += sight->tiles_per_frame[i];
    }
    row->tile = calloc((size_t)sight->n_tiles, sizeof *row->tile);
    row->crop = calloc((size_t)sight->n_tiles, sizeof *row->crop);
    if (!row->tile || !row->crop)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d tiles", sight->n_tiles);
    lb_status status = sight->findings.n_frames ? start_crops(s, size, &row->crops, error) : LB_STATUS_OK;
    if (status != LB_STATUS_OK)
        return status;
    const uint8_t *own = clip->tiles;
    int at = 0, first = 0, next = 0; /* first: of the frame's crops */
    for (int i = 0; i < clip->n_frames; i++) {
        for (int k = 0; k < clip->tiles_per_frame[i]; k++, own += (size_t)size * (size_t)size * 3) {
            row->tile[at] = own;
            row->crop[at++] = -1;
        }
        const int n_crops = sight->tiles_per_frame[i] - clip->tiles_per_frame[i];
        if (n_crops > 0 && !shares_crops(clip, i)) {
            first = next;
            next += n_crops;
        }
        for (int k = 0; k < n_crops; k++) {
            row->tile[at] = lb_crops_tile(row->crops, first + k);
            row->crop[at++] = first + k;
        }
    }
    return LB_STATUS_OK;
}

static lb_status dump_tiles(const lb_session *s, int size, tile_row *row, lb_error *error) {
    const char *folder = s->clip->dump_dir;
    const int n = s->sight.n_tiles;
    lb_status status = lb_folder_make(folder, error);
    for (int i = 0; i < n && status == LB_STATUS_OK; i++)
        status = wait_for_tile(i, row, error);
    if (status == LB_STATUS_OK)
        status = lb_npy_write_parts(folder, "tiles.npy", "|u1", 4, (int64_t[]){n, size, size, 3},
                                    (const void *const *)row->tile, error);
    int32_t counts[s->clip->n_frames];
    for (int i = 0; i < s->clip->n_frames; i++)
        counts[i] = s->sight.tiles_per_frame[i];
    if (status == LB_STATUS_OK)
        status = lb_npy_write(folder, "tiles_per_frame.npy", "<i4", 1, (int64_t[]){s->clip->n_frames}, counts, error);
    return status;
}

static void *prepare(void *user) {
    lb_session_prepare(user);
    return NULL;
}

/* The questions' prompts and tokens are made meanwhile: they hang on the number of tiles, not on what is in them. */
static lb_status encode_tiles(lb_session *s, tile_row *row, lb_error *error) {
    const lb_tile_list list = {.tile = row->tile, .n = s->sight.n_tiles, .wait = wait_for_tile, .user = row};
    pthread_t thread;
    const bool started = pthread_create(&thread, NULL, prepare, s) == 0;
    lb_status status = lb_vlm_encode(s->engine->vlm, &list, &s->sight.pictures, error);
    if (started)
        pthread_join(thread, NULL);
    return status;
}

/* Room in the cache, before the embeddings are allocated; where there is none they are used and not kept. */
static void reserve(lb_session *s) {
    const lb_vlm_info *info = lb_vlm_get_info(s->engine->vlm);
    const size_t bytes =
        (size_t)s->sight.n_tiles * (size_t)info->tokens_per_tile * (size_t)info->n_embd * sizeof(float);
    if (!s->engine->params.cache || !s->clip->key)
        return;
    lb_vlm_release_spare(s->engine->vlm); /* of a video that was not kept */
    if (lb_cache_reserve(s->engine->params.cache, bytes))
        s->reserved = bytes;
}

lb_status lb_session_encode(lb_session *s, lb_error *error) {
    const lb_vlm_info *info = lb_vlm_get_info(s->engine->vlm);
    lb_sight *sight = &s->sight;
    tile_row row = {0};
    double start = lb_now_s();
    lb_engine_phase(s->engine, LB_PHASE_ENCODE);
    lb_status status = lay_out(s, info->image_size, &row, error);
    if (status == LB_STATUS_OK && s->clip->dump_dir)
        status = dump_tiles(s, info->image_size, &row, error);
    const bool room = (int64_t)sight->n_tiles * info->tokens_per_tile < info->n_ctx_train;
    if (status == LB_STATUS_OK && room)
        reserve(s);
    if (status == LB_STATUS_OK && room)
        status = encode_tiles(s, &row, error);
    sight->encode_s = lb_now_s() - start;
    lb_crops_free(row.crops);
    free(row.tile);
    free(row.crop);
    if (status == LB_STATUS_OK && room && s->clip->dump_dir)
        status = lb_npy_write(s->clip->dump_dir, "embeddings.npy", "<f4", 2,
                              (int64_t[]){lb_embeddings_n_rows(sight->pictures), info->n_embd},
                              lb_embeddings_rows(sight->pictures), error);
    return status;
}
