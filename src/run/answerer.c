/* lowbeam.h on the engine, in the caller's process. */
#include "lowbeam.h"

#include "base/error.h"
#include "image/tiles.h"
#include "run/clip.h"
#include "run/engine.h"
#include "run/run.h"

#include <stdlib.h>
#include <string.h>

enum { N_STRINGS = 7 };

struct lb_answerer {
    lb_engine *engine;
    lb_clip_params clip_params;
    lb_clip *clip;    /* of the video asked about last */
    uint64_t clip_id; /* counts videos: the engine keeps a clip's embeddings by it */
    char *video;
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
    lb_engine_free(a->engine);
    lb_clip_free(a->clip);
    free(a->video);
    for (int i = 0; i < N_STRINGS; i++)
        free(a->copies[i]);
    free(a);
}

static lb_status use_video(lb_answerer *a, const char *video, lb_error *error) {
    if (a->clip && strcmp(a->video, video) == 0)
        return LB_STATUS_OK;
    lb_clip_free(a->clip); /* before the next is read: never two at once */
    free(a->video);
    a->clip = NULL;
    a->video = strdup(video);
    if (!a->video)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    a->clip_id++;
    return lb_clip_prepare(video, &a->clip_params, &a->clip, error);
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
    lb_status status = use_video(a, video, error);
    if (status != LB_STATUS_OK)
        return status;
    catcher c = {answer, n_choices, LB_STATUS_INTERNAL, error};
    lb_engine_question q = {.id = "", .text = question, .choices = choices, .n_choices = n_choices, .wanted = true};
    const lb_frames *frames = a->clip->frames;
    lb_engine_clip clip = {.n_frames = frames->n_frames,
                           .tiles_per_frame = a->clip->tiles_per_frame,
                           .tiles = a->clip->tiles,
                           .frames = frames->data,
                           .width = frames->width,
                           .height = frames->height,
                           .resized = a->clip->resized,
                           .index = frames->index,
                           .time_s = frames->time_s,
                           .id = a->clip_id};
    lb_engine_answer(a->engine, &clip, &q, 1, (lb_engine_callbacks){.reply = catch_reply, .user = &c});
    if (c.status != LB_STATUS_OK)
        lb_answer_free(answer);
    return c.status;
}

void lb_answer_free(lb_answer *answer) {
    free(answer->text);
    *answer = (lb_answer){0};
}
