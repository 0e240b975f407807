/* lowbeam.h on the engine, in the caller's process. */
#include "lowbeam.h"

#include "base/error.h"
#include "image/tiles.h"
#include "memory/cache.h"
#include "memory/host.h"
#include "run/clip.h"
#include "run/engine.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_STRINGS = 7 };

struct lb_answerer {
    lb_engine *engine;
    lb_clip_params clip_params;
    lb_cache *cache;         /* clips by "clip KEY", the engine's embeddings by KEY: path, size and times */
    char *copies[N_STRINGS]; /* of the option strings */
};

lb_engine_options lb_engine_default_options(void) {
    const lb_run_params defaults = lb_run_default_params();
    const lb_engine_params *e = &defaults.child.engine;
    return (lb_engine_options){.device = e->vlm.device,
                               .n_frames = defaults.clip.frames.n_frames,
                               .max_tiles = defaults.clip.max_tiles,
                               .max_new_tokens = e->max_new_tokens,
                               .box_threshold = e->box_threshold,
                               .text_threshold = e->text_threshold,
                               .max_detections = e->max_detections};
}

static lb_status check_options(const lb_engine_options *o, lb_error *error) {
    if (!o->model || !o->mmproj)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "options.%s is not set", o->model ? "mmproj" : "model");
    if (o->n_frames < 1 || o->n_frames > 1024)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "options.n_frames is %d, not 1 to 1024", o->n_frames);
    if (o->max_tiles < 1 || o->max_tiles > LB_TILES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "options.max_tiles is %d, not 1 to %d", o->max_tiles,
                            LB_TILES_MAX);
    if (o->max_new_tokens < 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "options.max_new_tokens is %d, below 1",
                            o->max_new_tokens);
    if (!(o->box_threshold >= 0 && o->box_threshold <= 1) || !(o->text_threshold >= 0 && o->text_threshold <= 1))
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "options.box_threshold is %g and options.text_threshold %g, not 0 to 1",
                            (double)o->box_threshold, (double)o->text_threshold);
    if (o->max_detections < 1)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "options.max_detections is %d, below 1",
                            o->max_detections);
    return LB_STATUS_OK;
}

lb_status lb_answerer_open(const lb_engine_options *o, lb_answerer **out, lb_error *error) {
    *out = NULL;
    lb_status status = check_options(o, error);
    if (status != LB_STATUS_OK)
        return status;
    lb_answerer *a = calloc(1, sizeof *a);
    if (!a)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    const char *strings[N_STRINGS] = {o->model,  o->mmproj,   o->device,     o->prompt_file,
                                      o->system, o->detector, o->labels_file};
    for (int i = 0; i < N_STRINGS && status == LB_STATUS_OK; i++)
        if (strings[i] && !(a->copies[i] = strdup(strings[i])))
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    lb_engine_params params = lb_engine_default_params();
    params.vlm.model_path = a->copies[0];
    params.vlm.mmproj_path = a->copies[1];
    params.vlm.device = a->copies[2];
    params.prompt_path = a->copies[3];
    params.system = a->copies[4];
    params.detector_path = a->copies[5];
    params.labels_path = a->copies[6];
    params.box_threshold = o->box_threshold;
    params.text_threshold = o->text_threshold;
    params.max_detections = o->max_detections;
    params.vlm.n_threads = o->n_threads;
    params.vlm.exact = o->exact;
    params.vlm.n_parallel = 1;
    params.max_new_tokens = o->max_new_tokens;
    params.letter_only = o->letter_only;
    a->cache = lb_cache_new(o->cache_bytes ? o->cache_bytes : lb_host_default_cache());
    params.cache = a->cache;
    if (status == LB_STATUS_OK && !a->cache)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    if (status == LB_STATUS_OK)
        status = lb_engine_open(&params, NULL, &a->engine, error);
    if (status != LB_STATUS_OK) {
        lb_answerer_close(a);
        return status;
    }
    a->clip_params = (lb_clip_params){.frames = lb_frames_default_params(),
                                      .max_tiles = o->max_tiles,
                                      .tile_size = lb_vlm_get_info(lb_engine_vlm(a->engine))->image_size};
    a->clip_params.frames.n_frames = o->n_frames;
    const lb_preprocess_params *edges = lb_engine_preprocess(a->engine);
    if (edges) {
        a->clip_params.shortest_edge = edges->shortest_edge;
        a->clip_params.longest_edge = edges->longest_edge;
    }
    *out = a;
    return LB_STATUS_OK;
}

void lb_answerer_close(lb_answerer *a) {
    if (!a)
        return;
    lb_cache_free(a->cache); /* before the engine, whose embeddings are in it */
    lb_engine_free(a->engine);
    for (int i = 0; i < N_STRINGS; i++)
        free(a->copies[i]);
    free(a);
}

/* A video that was changed is another one. From malloc. */
static char *make_key(const char *video) {
    lb_fingerprint f = {0};
    char *key;
    lb_fingerprint_look(video, &f, NULL); /* what cannot be looked at cannot be read, which is told then */
    return asprintf(&key, "clip %lld %lld %lld %s", (long long)f.n_bytes, (long long)f.mtime_ns, (long long)f.ctime_ns,
                    video) < 0
               ? NULL
               : key;
}

/* A clip on its way into the cache. */
typedef struct admission {
    lb_answerer *answerer;
    size_t bytes;
} admission;

static lb_status admit(int width, int height, void *user, lb_error *error) {
    admission *admitted = user;
    lb_answerer *a = admitted->answerer;
    size_t bytes;
    lb_status status = lb_clip_bytes(width, height, &a->clip_params, &bytes, error);
    if (status != LB_STATUS_OK)
        return status;
    if (!lb_cache_reserve(a->cache, bytes))
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT,
                            "%d frames of %dx%d with their tiles are %.1f MiB, options.cache_bytes %.1f MiB; raise it, "
                            "or take fewer frames or tiles",
                            a->clip_params.frames.n_frames, width, height, (double)bytes / (1 << 20),
                            (double)lb_cache_limit(a->cache) / (1 << 20));
    admitted->bytes = bytes;
    return LB_STATUS_OK;
}

static void free_clip(void *value) {
    lb_clip_free(value);
}

/* In use until it is released. */
static lb_status use_clip(lb_answerer *a, const char *video, const char *key, lb_clip **clip, lb_error *error) {
    *clip = lb_cache_get(a->cache, key);
    if (*clip)
        return LB_STATUS_OK;
    admission admitted = {.answerer = a};
    lb_clip_params params = a->clip_params;
    params.frames.admit = admit;
    params.frames.user = &admitted;
    lb_status status = lb_clip_prepare(video, &params, clip, error);
    if (status == LB_STATUS_OK && !lb_cache_put(a->cache, key, *clip, admitted.bytes, free_clip)) {
        lb_clip_free(*clip);
        *clip = NULL;
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    }
    if (status != LB_STATUS_OK)
        lb_cache_unreserve(a->cache, admitted.bytes);
    return status;
}

typedef struct catcher {
    lb_answer *answer;
    int n_choices;
    lb_status status;
    lb_error *error;
} catcher;

static void catch_reply(const lb_engine_reply *r, void *user) {
    catcher *c = user;
    if (r->status != LB_STATUS_OK) {
        c->status = lb_error_set(c->error, r->status, "%s", r->message);
        return;
    }
    lb_answer *answer = c->answer;
    answer->text = strdup(r->text);
    if (!answer->text) {
        c->status = lb_error_set(c->error, LB_STATUS_OUT_OF_MEMORY, "no memory");
        return;
    }
    answer->letter = (char)('A' + r->letter);
    answer->fallback = r->fallback;
    answer->n_prompt_tokens = r->n_prompt_tokens;
    answer->n_new_tokens = r->n_new_tokens;
    lb_softmax(r->letter_logits, c->n_choices, answer->probability);
    c->status = LB_STATUS_OK;
}

lb_status lb_answerer_ask(lb_answerer *a, const char *video, const char *question, const char *const *choices,
                          int n_choices, lb_answer *answer, lb_error *error) {
    *answer = (lb_answer){0};
    if (n_choices < LB_CHOICES_MIN || n_choices > LB_CHOICES_MAX)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%d choices, not %d to %d", n_choices, LB_CHOICES_MIN,
                            LB_CHOICES_MAX);
    char *clip_key = make_key(video);
    if (!clip_key)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    const char *key = clip_key + strlen("clip ");
    lb_clip *made = NULL; /* not needed where the embeddings are there */
    lb_engine_clip clip = {.n_frames = a->clip_params.frames.n_frames, .key = key};
    lb_status status = lb_engine_knows(a->engine, key) ? LB_STATUS_OK : use_clip(a, video, clip_key, &made, error);
    if (made) {
        const lb_frames *frames = made->frames;
        clip.tiles_per_frame = made->tiles_per_frame;
        clip.tiles = made->tiles;
        clip.frames = frames->data;
        clip.width = frames->width;
        clip.height = frames->height;
        clip.resized = made->resized;
        clip.index = frames->index;
        clip.time_s = frames->time_s;
    }
    catcher c = {answer, n_choices, status, error};
    lb_engine_question q = {.id = "", .text = question, .choices = choices, .n_choices = n_choices, .wanted = true};
    if (status == LB_STATUS_OK) {
        c.status = LB_STATUS_INTERNAL;
        lb_engine_answer(a->engine, &clip, &q, 1, (lb_engine_callbacks){.reply = catch_reply, .user = &c});
    }
    lb_cache_release(a->cache, made);
    free(clip_key);
    if (c.status != LB_STATUS_OK)
        lb_answer_free(answer);
    return c.status;
}

void lb_answer_free(lb_answer *answer) {
    free(answer->text);
    *answer = (lb_answer){0};
}
