#include "run/child.h"

#include "base/error.h"
#include "base/log.h"
#include "memory/store.h"
#include "nn/device.h"
#include "run/child_devices.h"
#include "run/planner.h"
#include "run/sight.h"
#include "run/wire.h"
#include "vlm/tokenizer.h"

#include <ggml.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int abort_fd = -1;

/* ggml's last words. The process ends after this: nothing here may fail in a new way. */
static void tell_abort(const char *cause) {
    static char text[1024];
    snprintf(text, sizeof text, "%s", cause);
    lb_devices_rename(text, sizeof text);
    lb_wire_send(abort_fd, json_pack("{s:s, s:s}", "type", "abort", "cause", text), NULL, NULL);
}

static void log_to_stderr(lb_log_level level, const char *stage, const char *message, void *user) {
    const lb_log_level *least = user;
    if (level >= *least)
        fprintf(stderr, "%s: %s\n", stage, message);
}

static const char *text_or_null(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

enum { N_STRINGS = 8, CHOICES = LB_CHOICES_MAX };

static const char *const string_names[N_STRINGS] = {"model",  "mmproj",   "device", "prompt",
                                                    "system", "detector", "labels", "cache_dir"};

/* strings: [N_STRINGS], what the parameters point to */
static lb_engine_params read_params(const json_t *m, char **strings) {
    for (int i = 0; i < N_STRINGS; i++)
        strings[i] = lb_wire_bytes_get(json_object_get(m, string_names[i]));
    lb_engine_params p = lb_engine_default_params();
    p.vlm.model_path = strings[0];
    p.vlm.mmproj_path = strings[1];
    p.vlm.device = strings[2];
    p.prompt_path = strings[3];
    p.system = strings[4];
    p.detector_path = strings[5];
    p.labels_path = strings[6];
    p.cache_dir = strings[7];
    p.vlm.n_threads = (int)json_integer_value(json_object_get(m, "n_threads"));
    p.vlm.exact = json_is_true(json_object_get(m, "exact"));
    p.vlm.tile_batch = (int)json_integer_value(json_object_get(m, "tile_batch"));
    p.vlm.n_ubatch = (int)json_integer_value(json_object_get(m, "n_ubatch"));
    p.vlm.n_parallel = (int)json_integer_value(json_object_get(m, "n_parallel"));
    p.max_new_tokens = (int)json_integer_value(json_object_get(m, "max_new_tokens"));
    p.letter_only = json_is_true(json_object_get(m, "letter_only"));
    p.reuse = json_is_true(json_object_get(m, "reuse"));
    p.box_threshold = (float)json_number_value(json_object_get(m, "box_threshold"));
    p.text_threshold = (float)json_number_value(json_object_get(m, "text_threshold"));
    p.max_detections = (int)json_integer_value(json_object_get(m, "max_detections"));
    p.detector_batch = (int)json_integer_value(json_object_get(m, "detector_batch"));
    p.n_vram = lb_wire_sizes_get(json_object_get(m, "vram"), p.vram, LB_DEVICES_MAX);
    p.n_retries = (int)json_integer_value(json_object_get(m, "n_retries"));
    p.allow = (unsigned)json_integer_value(json_object_get(m, "allow"));
    p.ram_bytes = (size_t)json_integer_value(json_object_get(m, "ram_bytes"));
    p.cache_bytes = (size_t)json_integer_value(json_object_get(m, "cache_bytes"));
    p.weight_bits = (int)json_integer_value(json_object_get(m, "weight_bits"));
    p.kv_bits = (int)json_integer_value(json_object_get(m, "kv_bits"));
    p.deadlines = json_is_true(json_object_get(m, "deadlines"));
    return p;
}

/* The work, whose texts stay those of the message; questions and choices: to be freed after the plan is made. */
static bool read_work(const json_t *m, lb_engine_work *work, lb_engine_question **questions, const char ***choices) {
    const json_t *w = json_object_get(m, "work"), *longest = json_object_get(w, "longest");
    const size_t n = json_array_size(longest);
    *questions = calloc(n + 1, sizeof **questions);
    *choices = calloc(n * CHOICES + 1, sizeof **choices);
    for (size_t i = 0; i < n && *questions && *choices; i++) {
        const json_t *q = json_array_get(longest, i), *c = json_object_get(q, "choices");
        const char **at = *choices + i * CHOICES;
        (*questions)[i] =
            (lb_engine_question){.text = text_or_null(q, "text"), .choices = at, .n_choices = (int)json_array_size(c)};
        for (size_t k = 0; k < json_array_size(c) && k < CHOICES; k++)
            at[k] = json_string_value(json_array_get(c, k));
    }
    *work = (lb_engine_work){.n_frames = (int)json_integer_value(json_object_get(w, "n_frames")),
                             .tiles_per_frame = (int)json_integer_value(json_object_get(w, "tiles_per_frame")),
                             .picture_width = (int)json_integer_value(json_object_get(w, "picture_width")),
                             .picture_height = (int)json_integer_value(json_object_get(w, "picture_height")),
                             .frame_bytes = (size_t)json_integer_value(json_object_get(w, "frame_bytes")),
                             .longest = *questions,
                             .n_longest = (int)n};
    return *questions && *choices;
}

typedef struct server {
    int fd;
    lb_engine *engine;
    char *strings[N_STRINGS]; /* that the engine's parameters point to */
    lb_child_devices devices; /* the same */
    char vision[64];          /* lb_engine_vision's, as the parent has it */
    bool lost;                /* the parent is gone */
} server;

static void send_message(server *s, json_t *message) {
    size_t allocated = 0, reserved = 0;
    if (s->engine && message) {
        lb_vlm_memory(lb_engine_vlm(s->engine), &allocated, &reserved);
        json_object_set_new(message, "allocated", json_integer((json_int_t)allocated));
        json_object_set_new(message, "reserved", json_integer((json_int_t)reserved));
    }
    if (lb_wire_send(s->fd, message, NULL, NULL) == LB_STATUS_CHILD_DIED)
        s->lost = true;
}

static json_t *floats(const float *values, int n) {
    json_t *array = json_array();
    for (int i = 0; values && i < n; i++)
        if (json_array_append_new(array, json_real((double)values[i])) != 0) {
            json_decref(array); /* and no reply: better than one with a logit less */
            return NULL;
        }
    return array;
}

typedef struct video {
    server *server;
    const lb_engine_question *questions;
    int n_frames;
    int seen; /* descriptor of what the models saw; -1 */
} video;

static void keep_seen(const lb_sight *sight, void *user) {
    video *v = user;
    size_t bytes;
    lb_sight_write(sight, v->n_frames, lb_vlm_get_info(lb_engine_vlm(v->server->engine))->n_embd, &v->seen, &bytes,
                   NULL); /* without memory it is not kept */
}

/* To the parent, unless memory was short on the way: another batch may round otherwise. */
static void send_seen(video *v) {
    char vision[sizeof v->server->vision];
    lb_engine_vision(v->server->engine, vision, sizeof vision);
    if (v->seen >= 0 && strcmp(vision, v->server->vision) == 0 &&
        lb_wire_send(v->server->fd, json_pack("{s:s}", "type", "seen"), &(lb_wire_fds){1, {v->seen}}, NULL) ==
            LB_STATUS_CHILD_DIED)
        v->server->lost = true;
    if (v->seen >= 0)
        close(v->seen);
}

static void send_reply(const lb_engine_reply *r, void *user) {
    video *v = user;
    int n_choices = v->questions[r->question].n_choices;
    send_message(v->server,
                 json_pack("{s:s, s:i, s:i, s:o, s:i, s:b, s:s, s:s, s:i, s:i, s:o, s:o, s:f, s:f, s:f, s:f, s:i, s:f, "
                           "s:i, s:b, s:i, s:b}",
                           "type", "reply", "question", r->question, "status", (int)r->status, "message",
                           lb_wire_bytes(r->message), "letter", r->letter, "fallback", (int)r->fallback, "text",
                           r->text, "prompt", r->prompt, "n_prompt_tokens", r->n_prompt_tokens, "n_new_tokens",
                           r->n_new_tokens, "letter_logits", floats(r->letter_logits, n_choices),
                           "letter_probabilities", floats(r->letter_probabilities, n_choices), "detect_s", r->detect_s,
                           "encode_s", r->encode_s, "prompt_s", r->prompt_s, "generate_s", r->generate_s, "n_empty",
                           r->n_empty, "elapsed_s", r->elapsed_s, "n_frames", r->n_frames, "fewer_crops",
                           (int)r->fewer_crops, "max_crops", r->max_crops, "cut", (int)r->cut));
}

static bool keep_going(void *user) {
    video *v = user;
    return !v->server->lost && !lb_wire_pending(v->server->fd); /* only "stop" comes while a video is being answered */
}

static bool is_evaluated(const lb_engine_question *questions, int n, int question, int batch_size) {
    const int first = question / batch_size * batch_size;
    for (int i = first; i < first + batch_size && i < n; i++)
        if (questions[i].wanted)
            return true;
    return false;
}

/* For the tests alone: LOWBEAM_TEST_FAULT="<kind>:<id>" fails at that question each time, "<kind>:<beginning>*" at all
 * whose ids begin so, "<kind>:<id>:<file>:<times>" so many times, counted by the file's bytes. As a fault of a
 * library's would, it takes those along that share a batch with the question. Kinds: "abort"; "abort-oom" with what
 * ggml says when a device is full; "oom", where the engine says so. True: the video's questions were answered by that.
 */
static bool test_fault(video *v, int n, int batch_size) {
    char *fault = getenv("LOWBEAM_TEST_FAULT"), kind[16], id[256], path[1024];
    int times = 0;
    const int n_read = fault ? sscanf(fault, "%15[^:]:%255[^:]:%1023[^:]:%d", kind, id, path, &times) : 0;
    if (n_read < 2)
        return false;
    size_t length = strlen(id);
    const bool any = id[length - 1] == '*';
    length -= any;
    for (int i = 0; i < n; i++) {
        const char *own = v->questions[i].id;
        if (strncmp(own, id, length) != 0 || (!any && own[length]) || !is_evaluated(v->questions, n, i, batch_size))
            continue;
        if (n_read == 4) {
            struct stat st = {0};
            if (stat(path, &st) == 0 && st.st_size >= times)
                continue;
            FILE *count = fopen(path, "a");
            if (count) {
                fputc('x', count);
                fclose(count);
            }
        }
        if (strcmp(kind, "abort-oom") == 0)
            GGML_ABORT("CUDA error: out of memory (test fault at question %s)", own);
        if (strcmp(kind, "oom") != 0)
            GGML_ABORT("test fault at question %s", own);
        for (int k = 0; k < n; k++)
            if (v->questions[k].wanted)
                send_reply(&(lb_engine_reply){.question = k,
                                              .status = LB_STATUS_OUT_OF_MEMORY,
                                              .message = "no room on the device (test fault)",
                                              .fallback = true,
                                              .text = "",
                                              .prompt = ""},
                           v);
        return true;
    }
    return false;
}

/* A video as the message brought it. */
typedef struct received {
    lb_engine_clip clip;
    lb_engine_question *questions; /* [n] */
    int n;
    const char **choices;
    char **folders; /* for the dump: each question's, and the video's last */
    struct mapping {
        void *data; /* NULL: not mapped */
        size_t bytes;
    } map[LB_WIRE_FDS_MAX];
} received;

/* The descriptors as memory. False: one of them cannot be mapped. */
static bool map_all(received *r, const lb_wire_fds *passed) {
    for (int i = 0; i < passed->n; i++) {
        struct stat st;
        if (fstat(passed->fd[i], &st) != 0)
            return false;
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, passed->fd[i], 0);
        if (data == MAP_FAILED)
            return false;
        r->map[i] = (struct mapping){data, (size_t)st.st_size};
    }
    return passed->n > 0;
}

static int *read_ints(const json_t *array) {
    const size_t n = json_array_size(array);
    int *values = calloc(n + 1, sizeof *values);
    for (size_t i = 0; i < n && values; i++)
        values[i] = (int)json_integer_value(json_array_get(array, i));
    return values;
}

static bool read_frames(received *r, const json_t *m) {
    lb_engine_clip *clip = &r->clip;
    if (!m || json_is_null(m)) /* no detector */
        return true;
    const json_t *index = json_object_get(m, "index"), *time_s = json_object_get(m, "time_s");
    int64_t *indices = calloc((size_t)clip->n_frames + 1, sizeof *indices);
    double *times = calloc((size_t)clip->n_frames + 1, sizeof *times);
    for (int i = 0; i < clip->n_frames && indices && times; i++) {
        indices[i] = json_integer_value(json_array_get(index, (size_t)i));
        times[i] = json_number_value(json_array_get(time_s, (size_t)i));
    }
    clip->index = indices;
    clip->time_s = times;
    clip->frames = r->map[1].data;
    clip->width = (int)json_integer_value(json_object_get(m, "width"));
    clip->height = (int)json_integer_value(json_object_get(m, "height"));
    clip->resized = (lb_resized){.data = r->map[2].data,
                                 .n = (int)json_integer_value(json_object_get(m, "n_resized")),
                                 .width = (int)json_integer_value(json_object_get(m, "resized_width")),
                                 .height = (int)json_integer_value(json_object_get(m, "resized_height")),
                                 .of_frame = read_ints(json_object_get(m, "of_frame"))};
    return indices && times && clip->resized.of_frame && clip->frames && clip->resized.data;
}

static bool read_questions(received *r, const json_t *list) {
    r->n = (int)json_array_size(list);
    r->questions = calloc((size_t)r->n + 1, sizeof *r->questions);
    r->choices = calloc((size_t)r->n * LB_CHOICES_MAX + 1, sizeof *r->choices);
    r->folders = calloc((size_t)r->n + 1, sizeof *r->folders);
    if (!r->questions || !r->choices || !r->folders)
        return false;
    for (int i = 0; i < r->n; i++) {
        const json_t *q = json_array_get(list, (size_t)i), *c = json_object_get(q, "choices");
        const char **at = r->choices + (size_t)i * LB_CHOICES_MAX;
        r->folders[i] = lb_wire_bytes_get(json_object_get(q, "dump_dir"));
        r->questions[i] = (lb_engine_question){.id = text_or_null(q, "id"),
                                               .text = text_or_null(q, "text"),
                                               .choices = at,
                                               .n_choices = (int)json_array_size(c),
                                               .wanted = json_is_true(json_object_get(q, "wanted")),
                                               .dump_dir = r->folders[i]};
        for (size_t k = 0; k < json_array_size(c) && k < LB_CHOICES_MAX; k++)
            at[k] = json_string_value(json_array_get(c, k));
    }
    return true;
}

static bool read_video(received *r, const json_t *m, const lb_wire_fds *passed) {
    const json_t *counts = json_object_get(m, "tiles_per_frame");
    if (!map_all(r, passed) || !read_questions(r, json_object_get(m, "questions")))
        return false;
    r->folders[r->n] = lb_wire_bytes_get(json_object_get(m, "dump_dir"));
    r->clip = (lb_engine_clip){.n_frames = (int)json_array_size(counts),
                               .tiles_per_frame = read_ints(counts),
                               .tiles = r->map[0].data,
                               .dump_dir = r->folders[r->n]};
    r->clip.left_s = json_number_value(json_object_get(m, "left_s"));
    const int n_seen_frames = (int)json_integer_value(json_object_get(m, "n_seen_frames"));
    if (n_seen_frames > 0) { /* an entry of the cache, and nothing else */
        r->clip.n_frames = n_seen_frames;
        r->clip.seen = (const uint8_t *)r->map[0].data + LB_STORE_HEADER;
        r->clip.n_seen = r->map[0].bytes - LB_STORE_HEADER;
        return r->map[0].bytes > LB_STORE_HEADER;
    }
    return r->clip.tiles_per_frame && read_frames(r, json_object_get(m, "frames"));
}

static void received_free(received *r) {
    for (int i = 0; i < LB_WIRE_FDS_MAX; i++)
        if (r->map[i].data)
            munmap(r->map[i].data, r->map[i].bytes);
    for (int i = 0; r->folders && i <= r->n; i++)
        free(r->folders[i]);
    free(r->folders);
    free(r->questions);
    free(r->choices);
    free((void *)r->clip.tiles_per_frame);
    free((void *)r->clip.resized.of_frame);
    free((void *)r->clip.index);
    free((void *)r->clip.time_s);
}

static void answer_video(server *s, const json_t *m, const lb_wire_fds *passed) {
    received r = {0};
    char *path = lb_wire_bytes_get(json_object_get(m, "path"));
    lb_ledger_video(path ? path : "");
    free(path);
    if (read_video(&r, m, passed)) {
        video v = {s, r.questions, r.clip.n_frames, -1};
        const bool keep = json_is_true(json_object_get(m, "keep"));
        if (!test_fault(&v, r.n, lb_vlm_get_info(lb_engine_vlm(s->engine))->n_parallel))
            lb_engine_answer(s->engine, &r.clip, r.questions, r.n,
                             (lb_engine_callbacks){send_reply, keep_going, keep ? keep_seen : NULL, &v});
        send_seen(&v);
    }
    send_message(s, json_pack("{s:s}", "type", "done")); /* first: unmapping takes a while */
    received_free(&r);
    lb_ledger_video("");
}

static void send_error(server *s, lb_status status, const lb_error *error) {
    send_message(s, json_pack("{s:s, s:i, s:o}", "type", "error", "status", (int)status, "message",
                              lb_wire_bytes(error->message)));
}

/* What of a plan can change an answer, in its last digits or more: two engines of one run must not differ in it. */
static void write_numbers(const lb_plan *plan, char *text, size_t n) {
    const lb_plan_choice *c = &plan->choice;
    snprintf(text, n,
             "steps of %d tokens, %d questions together, batches of %d tiles and %d frames, weights %d, KV cache %s, "
             "%d tiles and %d crops a frame",
             c->n_ubatch, c->n_parallel, c->tile_batch, c->frame_batch, c->weight_bits, c->kv_q8 ? "8 bits" : "whole",
             c->tiles_per_frame, c->crops_per_frame);
}

static void send_plan(server *s, const lb_plan *plan) {
    char numbers[sizeof((lb_child_state *)0)->numbers];
    write_numbers(plan, numbers, sizeof numbers);
    char adapted[sizeof plan->step + 2] = "", *text = lb_plan_text(plan), *json = lb_plan_json(plan);
    for (int i = 0; i < plan->n_steps; i++)
        snprintf(adapted + strlen(adapted), sizeof adapted - strlen(adapted), "%s%s", i ? "; " : "", plan->step[i]);
    const size_t host = plan->host_bytes[LB_COMPONENT_HOST_WEIGHTS] + plan->host_bytes[LB_COMPONENT_EMBEDDINGS];
    send_message(s, json_pack("{s:s, s:o, s:o, s:o, s:b, s:b, s:I, s:I, s:i, s:s}", "type", "plan", "text",
                              lb_wire_bytes(text), "json", lb_wire_bytes(json), "adapted", lb_wire_bytes(adapted),
                              "fits", (int)plan->fits, "changes_answers", (int)plan->changes_answers, "host_bytes",
                              (json_int_t)host, "clip_bytes", (json_int_t)plan->clip_bytes, "n_devices",
                              plan->choice.n_devices, "numbers", numbers));
    free(text);
    free(json);
}

/* "order": of all devices; "devices": another child is wanted, which sees so many of them; -1: whatever there is. */
static void send_devices(server *s, const char *type, int n) {
    const lb_device_order *order = &s->devices.all;
    send_message(s, json_pack("{s:s, s:i, s:s, s:o}", "type", type, "n_seen", n, "devices", order->names, "vram",
                              lb_wire_sizes(order->vram, order->n_vram)));
}

static void send_memory(server *s) {
    char *text = lb_engine_memory_text(s->engine), *json = lb_engine_memory_json(s->engine);
    send_message(
        s, json_pack("{s:s, s:o, s:o}", "type", "memory", "text", lb_wire_bytes(text), "json", lb_wire_bytes(json)));
    free(text);
    free(json);
}

/* The order of the devices where the parent has it, and what it knows of how many are needed. */
static void read_devices(const json_t *m, const lb_engine_params *params, lb_child_devices *devices) {
    *devices = (lb_child_devices){.last = json_is_true(json_object_get(m, "last"))};
    devices->all.n_seen = (int)json_integer_value(json_object_get(m, "n_seen"));
    if (!json_is_true(json_object_get(m, "ordered")))
        return;
    snprintf(devices->all.names, sizeof devices->all.names, "%s", params->vlm.device ? params->vlm.device : "");
    devices->all.n_vram = params->n_vram > 1 ? params->n_vram : 0;
    memcpy(devices->all.vram, params->vram, sizeof params->vram);
}

static void open_engine(server *s, const json_t *m) {
    if (s->engine) /* asked for once */
        return;
    lb_engine_params params = read_params(m, s->strings);
    lb_engine_work work;
    lb_engine_question *questions = NULL;
    const char **choices = NULL;
    lb_error error = {0};
    char *trace = lb_wire_bytes_get(json_object_get(m, "trace"));
    lb_status status = trace ? lb_ledger_trace(trace, &error) : LB_STATUS_OK;
    for (int i = 0; i < N_STRINGS; i++) /* a detector, say, must not be left out for lack of memory */
        if (!s->strings[i] && json_is_string(json_object_get(m, string_names[i])))
            status = lb_error_set(&error, LB_STATUS_OUT_OF_MEMORY, "no memory for the settings");
    free(trace);
    lb_plan *plan = NULL;
    params.work = json_is_object(json_object_get(m, "work")) ? &work : NULL;
    read_devices(m, &params, &s->devices);
    if (status == LB_STATUS_OK)
        status = lb_child_devices_order(&s->devices, &params, &error);
    if (status == LB_STATUS_OK) {
        send_devices(s, "order", 0);
        lb_child_devices_choose(&s->devices, &params);
    }
    int n_wanted = status == LB_STATUS_OK ? lb_child_devices_want(&s->devices, status, NULL) : 0;
    if (status == LB_STATUS_OK && n_wanted == 0 && params.work) {
        plan = calloc(1, sizeof *plan);
        status = plan && read_work(m, &work, &questions, &choices)
                     ? lb_engine_plan(&params, plan, &error)
                     : lb_error_set(&error, LB_STATUS_OUT_OF_MEMORY, "no memory for the plan");
        n_wanted = lb_child_devices_want(&s->devices, status, plan);
        if (n_wanted == 0 && (status == LB_STATUS_OK || status == LB_STATUS_DOES_NOT_FIT))
            send_plan(s, plan);
    }
    if (n_wanted != 0)
        lb_tokenizer_free(params.tokenizer);
    else if (status == LB_STATUS_OK && !json_is_true(json_object_get(m, "plan_only")))
        status = lb_engine_open(&params, plan, &s->engine, &error);
    else
        lb_tokenizer_free(params.tokenizer);
    free(questions);
    free(choices);
    free(plan);
    if (n_wanted != 0) {
        send_devices(s, "devices", n_wanted);
        return;
    }
    if (status != LB_STATUS_OK) {
        send_error(s, status, &error);
        return;
    }
    if (!s->engine) { /* the plan was all that was asked for */
        send_message(s, json_pack("{s:s}", "type", "ready"));
        return;
    }
    const lb_vlm_info *info = lb_vlm_get_info(lb_engine_vlm(s->engine));
    const lb_preprocess_params *edges = lb_engine_preprocess(s->engine);
    size_t allocated, reserved;
    lb_engine_vlm_memory(s->engine, &allocated, &reserved);
    lb_engine_vision(s->engine, s->vision, sizeof s->vision);
    send_message(s, json_pack("{s:s, s:s, s:o, s:o, s:i, s:i, s:i, s:i, s:I, s:I}", "type", "ready", "vision",
                              s->vision, "device", lb_wire_bytes(info->device), "description",
                              lb_wire_bytes(info->device_description), "image_size", info->image_size, "n_parallel",
                              info->n_parallel, "shortest_edge", edges ? edges->shortest_edge : 0, "longest_edge",
                              edges ? edges->longest_edge : 0, "vlm_allocated", (json_int_t)allocated, "vlm_reserved",
                              (json_int_t)reserved));
}

int lb_child_main(int fd) {
    /* Ctrl-C goes to the whole group, and so does what `timeout` or a service manager sends; it is the parent that
     * decides when this process ends */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    static lb_log_level least = LB_LOG_WARN;
    const char *level = getenv("LOWBEAM_LOG");
    if (level)
        least = strcmp(level, "debug") == 0 ? LB_LOG_DEBUG : LB_LOG_INFO;
    lb_log_set(log_to_stderr, &least);
    setenv("GGML_NO_BACKTRACE", "1", 0);
    abort_fd = fd;
    ggml_set_abort_callback(tell_abort);

    server s = {.fd = fd};
    while (!s.lost) {
        json_t *message = NULL;
        lb_wire_fds passed;
        lb_status status = lb_wire_receive(fd, &message, &passed, NULL);
        if (status == LB_STATUS_INTERRUPTED)
            continue;
        if (status != LB_STATUS_OK)
            break;
        const char *type = lb_wire_type(message);
        if (strcmp(type, "open") == 0)
            open_engine(&s, message);
        else if (strcmp(type, "memory") == 0 && s.engine)
            send_memory(&s);
        else if (strcmp(type, "video") == 0 && s.engine)
            answer_video(&s, message, &passed);
        lb_wire_fds_close(&passed);
        json_decref(message);
    }
    lb_engine_free(s.engine);
    for (int i = 0; i < N_STRINGS; i++)
        free(s.strings[i]);
    close(fd);
    return 0;
}
