#include "run/child.h"

#include "base/error.h"
#include "run/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct lb_child {
    pid_t pid;
    int fd;
    lb_child_state state;
    int seen;         /* what the models saw of the video, as the child sent it; -1 */
    char cause[1024]; /* what the child said before it died */
};

const lb_child_state *lb_child_get_state(const lb_child *child) {
    return &child->state;
}

static lb_status spawn(lb_child *child, const char *program, lb_error *error) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return lb_error_set(error, LB_STATUS_IO, "no socket for the engine child: %s", strerror(errno));
    char self[PATH_MAX];
    if (!program) {
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        self[n > 0 ? n : 0] = 0;
        program = self;
    }
    enum { CHILD_FD = 3 };
    char number[16];
    snprintf(number, sizeof number, "%d", CHILD_FD);
    char *const argv[] = {(char *)program, LB_CHILD_VERB, number, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    /* dup2 onto itself would keep close-on-exec; glibc's clears it then, as POSIX now asks */
    int rc = posix_spawn_file_actions_adddup2(&actions, pair[1], CHILD_FD);
    if (rc == 0)
        rc = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&actions, 2, 1); /* stdout is for the parent's results */
    /* a Ctrl-C while it is still loading its libraries would kill it before it ignores that; the rest of the mask is
     * not that of the thread, which may have all of them blocked */
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    posix_spawnattr_setsigmask(&attributes, &blocked);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (rc == 0)
        rc = posix_spawn(&child->pid, program, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(pair[1]);
    if (rc != 0) {
        close(pair[0]);
        return lb_error_set(error, LB_STATUS_IO, "%s: the engine child cannot be started: %s", program, strerror(rc));
    }
    child->fd = pair[0];
    return LB_STATUS_OK;
}

/* The child is gone or useless: end it for good and say why. */
static lb_status bury(lb_child *child, lb_error *error) {
    int how = 0;
    if (child->fd >= 0)
        close(child->fd);
    child->fd = -1;
    if (child->pid > 0) {
        /* it closed its socket: it is ending by itself, with the status that tells why; SIGKILL would hide it */
        for (int i = 0; i < 500; i++) {
            if (waitpid(child->pid, &how, WNOHANG) == child->pid) {
                child->pid = 0;
                break;
            }
            usleep(10000);
        }
        if (child->pid > 0) {
            kill(child->pid, SIGKILL);
            waitpid(child->pid, &how, 0);
            child->pid = 0;
        }
    }
    const char *said = child->cause[0] ? child->cause : NULL;
    if (WIFSIGNALED(how)) {
        int signal_number = WTERMSIG(how);
        const char *hint =
            signal_number == SIGKILL ? " (killed from outside; the system does so when memory runs out)" : "";
        return lb_error_set(error, LB_STATUS_CHILD_DIED, "the engine process died of signal %d (%s)%s%s%s",
                            signal_number, strsignal(signal_number), hint, said ? ": " : "", said ? said : "");
    }
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "the engine process ended with status %d%s%s", WEXITSTATUS(how),
                        said ? ": " : "", said ? said : "");
}

static size_t size_of(const json_t *m, const char *key) {
    json_int_t value = json_integer_value(json_object_get(m, key));
    return value > 0 ? (size_t)value : 0;
}

/* One message; its "abort" and the memory figures are taken note of here. */
static lb_status next_message(lb_child *child, const atomic_bool *cancel, bool *stopping, json_t **message,
                              lb_error *error) {
    for (;;) {
        if (cancel && *cancel && stopping && !*stopping) {
            *stopping = true;
            if (lb_wire_send(child->fd, json_pack("{s:s}", "type", "stop"), NULL, NULL) != LB_STATUS_OK)
                return bury(child, error);
        }
        if (cancel && *cancel && !stopping)
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        /* not in recvmsg itself: a signal that comes just before it would be slept through */
        if (!lb_wire_wait(child->fd, 100))
            continue;
        lb_wire_fds passed;
        lb_status status = lb_wire_receive(child->fd, message, &passed, error);
        if (status == LB_STATUS_OK && passed.n > 0 && strcmp(lb_wire_type(*message), "seen") == 0) {
            if (child->seen >= 0)
                close(child->seen);
            child->seen = passed.fd[--passed.n];
        }
        lb_wire_fds_close(&passed);
        if (status == LB_STATUS_INTERRUPTED)
            continue;
        if (status != LB_STATUS_OK)
            return bury(child, error);
        if (json_object_get(*message, "allocated")) {
            child->state.allocated_bytes = size_of(*message, "allocated");
            child->state.reserved_bytes = size_of(*message, "reserved");
        }
        if (strcmp(lb_wire_type(*message), "abort") != 0)
            return LB_STATUS_OK;
        const char *cause = json_string_value(json_object_get(*message, "cause"));
        snprintf(child->cause, sizeof child->cause, "%s", cause ? cause : "");
        json_decref(*message);
        *message = NULL;
    }
}

static json_t *texts(const char *const *text, int n) {
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        lb_wire_append(&array, json_string(text[i]));
    return array;
}

static json_t *plan_message(const lb_engine_params *p) {
    json_t *work = json_null();
    if (p->work) {
        json_t *longest = json_array();
        for (int i = 0; i < p->work->n_longest; i++) {
            const lb_engine_question *q = &p->work->longest[i];
            lb_wire_append(&longest,
                           json_pack("{s:s, s:o}", "text", q->text, "choices", texts(q->choices, q->n_choices)));
        }
        work = json_pack("{s:i, s:i, s:i, s:i, s:I, s:o}", "n_frames", p->work->n_frames, "tiles_per_frame",
                         p->work->tiles_per_frame, "picture_width", p->work->picture_width, "picture_height",
                         p->work->picture_height, "frame_bytes", (json_int_t)p->work->frame_bytes, "longest", longest);
    }
    return json_pack("{s:o, s:o, s:i, s:i, s:i, s:i, s:o, s:I, s:I}", "work", work, "vram",
                     lb_wire_sizes(p->vram, p->n_vram), "n_retries", p->n_retries, "allow", (int)p->allow,
                     "weight_bits", p->weight_bits, "kv_bits", p->kv_bits, "cache_dir", lb_wire_bytes(p->cache_dir),
                     "ram_bytes", (json_int_t)p->ram_bytes, "cache_bytes", (json_int_t)p->cache_bytes);
}

static json_t *open_message(const lb_child_params *params, const lb_device_order *order, bool last) {
    lb_engine_params engine = params->engine;
    const lb_engine_params *p = &engine;
    lb_device_order_apply(order, &engine);
    json_t *m =
        json_pack("{s:s, s:o, s:o, s:o, s:i, s:b, s:i, s:i, s:i, s:o, s:o, s:i, s:b, s:b}", "type", "open", "model",
                  lb_wire_bytes(p->vlm.model_path), "mmproj", lb_wire_bytes(p->vlm.mmproj_path), "device",
                  lb_wire_bytes(p->vlm.device), "n_threads", p->vlm.n_threads, "exact", (int)p->vlm.exact, "tile_batch",
                  p->vlm.tile_batch, "n_ubatch", p->vlm.n_ubatch, "n_parallel", p->vlm.n_parallel, "prompt",
                  lb_wire_bytes(p->prompt_path), "system", lb_wire_bytes(p->system), "max_new_tokens",
                  p->max_new_tokens, "letter_only", (int)p->letter_only, "reuse", (int)p->reuse);
    json_t *detector =
        json_pack("{s:o, s:o, s:f, s:f, s:i, s:i}", "detector", lb_wire_bytes(p->detector_path), "labels",
                  lb_wire_bytes(p->labels_path), "box_threshold", (double)p->box_threshold, "text_threshold",
                  (double)p->text_threshold, "max_detections", p->max_detections, "detector_batch", p->detector_batch);
    json_t *plan = plan_message(p);
    if (m && (json_object_update(m, detector) != 0 || json_object_update(m, plan) != 0 ||
              json_object_set_new(m, "plan_only", json_boolean(params->plan_only)) != 0 ||
              json_object_set_new(m, "deadlines", json_boolean(p->deadlines)) != 0 ||
              json_object_set_new(m, "ordered", json_boolean(order->names[0] != 0)) != 0 ||
              json_object_set_new(m, "n_seen", json_integer(order->n_seen)) != 0 ||
              json_object_set_new(m, "last", json_boolean(last)) != 0 ||
              json_object_set_new(m, "trace", lb_wire_bytes(params->trace)) != 0)) {
        json_decref(m);
        m = NULL;
    }
    json_decref(detector);
    json_decref(plan);
    return m;
}

static const char *text_of(const json_t *m, const char *key) {
    const char *text = json_string_value(json_object_get(m, key));
    return text ? text : "";
}

/* What "plan" says. */
static void read_plan(const json_t *m, lb_child_state *state) {
    free(state->plan_text);
    free(state->plan_json);
    free(state->adapted);
    state->plan_text = lb_wire_bytes_get(json_object_get(m, "text"));
    state->plan_json = lb_wire_bytes_get(json_object_get(m, "json"));
    state->adapted = lb_wire_bytes_get(json_object_get(m, "adapted"));
    state->host_bytes = size_of(m, "host_bytes");
    state->clip_bytes = size_of(m, "clip_bytes");
    state->n_devices = (int)json_integer_value(json_object_get(m, "n_devices"));
    snprintf(state->numbers, sizeof state->numbers, "%s", text_of(m, "numbers"));
    state->fits = json_is_true(json_object_get(m, "fits"));
    state->changes_answers = json_is_true(json_object_get(m, "changes_answers"));
}

static void read_order(const json_t *m, lb_device_order *order) {
    snprintf(order->names, sizeof order->names, "%s", text_of(m, "devices"));
    order->n_vram = lb_wire_sizes_get(json_object_get(m, "vram"), order->vram, LB_DEVICES_MAX);
}

/* What "ready" says. */
static void read_state(const json_t *m, lb_child_state *state) {
    char *device = lb_wire_bytes_get(json_object_get(m, "device"));
    char *description = lb_wire_bytes_get(json_object_get(m, "description"));
    snprintf(state->device, sizeof state->device, "%s", device ? device : "?");
    snprintf(state->device_description, sizeof state->device_description, "%s", description ? description : "?");
    free(device);
    free(description);
    snprintf(state->vision, sizeof state->vision, "%s", text_of(m, "vision"));
    state->image_size = (int)json_integer_value(json_object_get(m, "image_size"));
    state->n_parallel = (int)json_integer_value(json_object_get(m, "n_parallel"));
    state->shortest_edge = (int)json_integer_value(json_object_get(m, "shortest_edge"));
    state->longest_edge = (int)json_integer_value(json_object_get(m, "longest_edge"));
    state->model_allocated_bytes = size_of(m, "vlm_allocated");
    state->model_reserved_bytes = size_of(m, "vlm_reserved");
}

/* n_wanted: not 0 when another child is to be started, which sees so many devices, or, -1, what there is. */
static lb_status start(lb_child *child, const lb_child_params *params, lb_device_order *order, bool last,
                       const atomic_bool *cancel, int *n_wanted, lb_error *error) {
    json_t *message = NULL;
    *n_wanted = 0;
    lb_status status = spawn(child, params->program, error);
    if (status == LB_STATUS_OK &&
        lb_wire_send(child->fd, open_message(params, order, last), NULL, error) != LB_STATUS_OK)
        status = bury(child, error);
    if (status == LB_STATUS_OK)
        status = next_message(child, cancel, NULL, &message, error);
    if (status == LB_STATUS_OK && strcmp(lb_wire_type(message), "order") == 0) {
        if (!order->names[0])
            read_order(message, order);
        json_decref(message);
        message = NULL;
        status = next_message(child, cancel, NULL, &message, error);
    }
    if (status == LB_STATUS_OK && strcmp(lb_wire_type(message), "devices") == 0) {
        *n_wanted = (int)json_integer_value(json_object_get(message, "n_seen"));
        if (*n_wanted > 0 && !order->names[0])
            read_order(message, order);
        json_decref(message);
        return LB_STATUS_OK;
    }
    if (status == LB_STATUS_OK && strcmp(lb_wire_type(message), "plan") == 0) {
        read_plan(message, &child->state);
        json_decref(message);
        message = NULL;
        if (params->check)
            status = params->check(&child->state, params->user, error);
        if (status == LB_STATUS_OK && params->planned)
            params->planned(&child->state, params->user);
        if (status == LB_STATUS_OK)
            status = next_message(child, cancel, NULL, &message, error);
    }
    if (status == LB_STATUS_OK && strcmp(lb_wire_type(message), "ready") != 0) {
        char *text = lb_wire_bytes_get(json_object_get(message, "message"));
        status = (lb_status)json_integer_value(json_object_get(message, "status"));
        lb_error_set(error, status, "%s", text ? text : "the engine child gave no reason");
        free(text);
    }
    if (status == LB_STATUS_OK)
        read_state(message, &child->state);
    json_decref(message);
    return status;
}

/* Nothing in it is worth waiting for. */
static void kill_child(lb_child *child) {
    if (child->pid > 0)
        kill(child->pid, SIGKILL);
    lb_child_stop(child);
}

lb_status lb_child_start(const lb_child_params *params, const atomic_bool *cancel, lb_child **out, lb_error *error) {
    *out = NULL;
    lb_device_order own = {0}, *order = params->order ? params->order : &own;
    const bool is_found = order->names[0] != 0; /* by a child before this call */
    for (;;) {
        lb_child *child = calloc(1, sizeof *child);
        if (!child)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
        child->fd = child->seen = -1;
        const int settled = 1 + params->engine.n_retries;
        int n_wanted;
        lb_status status = start(child, params, order, order->settled == settled, cancel, &n_wanted, error);
        if (status == LB_STATUS_OK && n_wanted == 0) {
            *out = child;
            return LB_STATUS_OK;
        }
        kill_child(child);
        if (status != LB_STATUS_OK)
            return status;
        if (n_wanted < 0 && !is_found)
            order->names[0] = 0;      /* what NVML said */
        if (n_wanted < order->n_seen) /* enough was seen to tell */
            order->settled = settled;
        order->n_seen = n_wanted;
    }
}

/* The frames go along where there is a detector: it reads their pictures, and crops are cut from them. */
static json_t *frames_message(const lb_clip *clip) {
    const lb_frames *f = clip->frames;
    json_t *of_frame = json_array(), *index = json_array(), *time_s = json_array();
    for (int i = 0; i < f->n_frames; i++) {
        lb_wire_append(&of_frame, json_integer(clip->resized.of_frame[i]));
        lb_wire_append(&index, json_integer((json_int_t)f->index[i]));
        lb_wire_append(&time_s, json_real(f->time_s[i]));
    }
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:o}", "width", f->width, "height", f->height, "n_resized",
                     clip->resized.n, "resized_width", clip->resized.width, "resized_height", clip->resized.height,
                     "of_frame", of_frame, "index", index, "time_s", time_s);
}

static json_t *video_message(const lb_clip *clip, const char *dump_dir, bool keep, double left_s,
                             const lb_engine_question *questions, int n) {
    json_t *counts = json_array(), *list = json_array();
    for (int i = 0; clip->frames && i < clip->frames->n_frames; i++)
        lb_wire_append(&counts, json_integer(clip->tiles_per_frame[i]));
    for (int i = 0; i < n; i++) {
        const lb_engine_question *q = &questions[i];
        lb_wire_append(&list, json_pack("{s:s, s:s, s:o, s:b, s:o}", "id", q->id, "text", q->text, "choices",
                                        texts(q->choices, q->n_choices), "wanted", (int)q->wanted, "dump_dir",
                                        lb_wire_bytes(q->dump_dir)));
    }
    return json_pack("{s:s, s:o, s:i, s:b, s:f, s:o, s:o, s:o, s:o}", "type", "video", "path",
                     lb_wire_bytes(clip->path), "n_seen_frames", clip->seen_fd >= 0 ? clip->n_seen_frames : 0, "keep",
                     (int)keep, "left_s", left_s, "dump_dir", lb_wire_bytes(dump_dir), "tiles_per_frame", counts,
                     "frames", clip->resized.data ? frames_message(clip) : json_null(), "questions", list);
}

static int read_floats(const json_t *array, float *values) {
    size_t n = json_array_size(array) < LB_CHOICES_MAX ? json_array_size(array) : LB_CHOICES_MAX;
    for (size_t i = 0; i < n; i++)
        values[i] = (float)json_number_value(json_array_get(array, i));
    return (int)n;
}

static void pass_reply(const json_t *m, int n_questions, void (*reply)(const lb_engine_reply *, void *), void *user) {
    float logits[LB_CHOICES_MAX], probabilities[LB_CHOICES_MAX];
    char *text = lb_wire_bytes_get(json_object_get(m, "message"));
    lb_engine_reply r = {
        .question = (int)json_integer_value(json_object_get(m, "question")),
        .status = (lb_status)json_integer_value(json_object_get(m, "status")),
        .message = text ? text : "the engine's reason was lost for lack of memory",
        .letter = (int)json_integer_value(json_object_get(m, "letter")),
        .fallback = json_is_true(json_object_get(m, "fallback")),
        .text = text_of(m, "text"),
        .prompt = text_of(m, "prompt"),
        .n_prompt_tokens = (int)json_integer_value(json_object_get(m, "n_prompt_tokens")),
        .n_new_tokens = (int)json_integer_value(json_object_get(m, "n_new_tokens")),
        .detect_s = json_number_value(json_object_get(m, "detect_s")),
        .encode_s = json_number_value(json_object_get(m, "encode_s")),
        .prompt_s = json_number_value(json_object_get(m, "prompt_s")),
        .generate_s = json_number_value(json_object_get(m, "generate_s")),
        .n_empty = (int)json_integer_value(json_object_get(m, "n_empty")),
        .elapsed_s = json_number_value(json_object_get(m, "elapsed_s")),
        .n_frames = (int)json_integer_value(json_object_get(m, "n_frames")),
        .fewer_crops = json_is_true(json_object_get(m, "fewer_crops")),
        .max_crops = (int)json_integer_value(json_object_get(m, "max_crops")),
        .cut = json_is_true(json_object_get(m, "cut")),
    };
    if (read_floats(json_object_get(m, "letter_logits"), logits) > 0)
        r.letter_logits = logits;
    if (read_floats(json_object_get(m, "letter_probabilities"), probabilities) > 0)
        r.letter_probabilities = probabilities;
    if (r.question >= 0 && r.question < n_questions)
        reply(&r, user);
    free(text);
}

lb_status lb_child_answer(lb_child *child, const lb_clip *clip, double left_s, const char *clip_dump_dir,
                          const lb_engine_question *questions, int n, void (*reply)(const lb_engine_reply *, void *),
                          void *user, int *seen, const atomic_bool *cancel, lb_error *error) {
    lb_wire_fds passed = {1, {clip->seen_fd >= 0 ? clip->seen_fd : clip->tiles_fd}};
    if (seen)
        *seen = -1;
    if (clip->resized.data)
        passed = (lb_wire_fds){3, {clip->tiles_fd, clip->frames->fd, clip->resized_fd}};
    if (lb_wire_send(child->fd, video_message(clip, clip_dump_dir, seen != NULL, left_s, questions, n), &passed,
                     error) != LB_STATUS_OK)
        return bury(child, error);
    bool stopping = false;
    for (;;) {
        json_t *message = NULL;
        lb_status status = next_message(child, cancel, &stopping, &message, error);
        if (status != LB_STATUS_OK)
            return status;
        bool done = strcmp(lb_wire_type(message), "done") == 0;
        if (strcmp(lb_wire_type(message), "reply") == 0)
            pass_reply(message, n, reply, user);
        json_decref(message);
        if (seen && child->seen >= 0) {
            *seen = child->seen;
            child->seen = -1;
        }
        if (done)
            return LB_STATUS_OK;
    }
}

void lb_child_stop(lb_child *child) {
    if (!child)
        return;
    free(child->state.plan_text);
    free(child->state.plan_json);
    free(child->state.adapted);
    if (child->seen >= 0)
        close(child->seen);
    if (child->fd >= 0)
        close(child->fd); /* the child ends when its socket does */
    for (int i = 0; child->pid > 0 && i < 1000; i++) {
        if (waitpid(child->pid, NULL, WNOHANG) == child->pid)
            child->pid = 0;
        else
            usleep(10000);
    }
    if (child->pid > 0) {
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
    }
    free(child);
}

static void copy_plan(const lb_child_state *state, void *user) {
    lb_child_state *copy = user;
    *copy = *state;
    copy->plan_text = state->plan_text ? strdup(state->plan_text) : NULL;
    copy->plan_json = state->plan_json ? strdup(state->plan_json) : NULL;
    copy->adapted = NULL;
}

lb_status lb_child_plan(const lb_child_params *given, const atomic_bool *cancel, lb_child_state *plan,
                        lb_error *error) {
    *plan = (lb_child_state){0};
    lb_child_params params = *given;
    params.plan_only = true;
    params.check = NULL;
    params.planned = copy_plan;
    params.user = plan;
    lb_child *child = NULL;
    lb_status status = lb_child_start(&params, cancel, &child, error);
    lb_child_stop(child);
    return status;
}

lb_status lb_child_memory(lb_child *child, const atomic_bool *cancel, char **text, char **json, lb_error *error) {
    *text = *json = NULL;
    json_t *message = NULL;
    if (lb_wire_send(child->fd, json_pack("{s:s}", "type", "memory"), NULL, error) != LB_STATUS_OK)
        return bury(child, error);
    (void)cancel; /* the answer comes at once, and an interrupted run wants it as well */
    lb_status status = next_message(child, NULL, NULL, &message, error);
    if (status == LB_STATUS_OK && strcmp(lb_wire_type(message), "memory") == 0) {
        *text = lb_wire_bytes_get(json_object_get(message, "text"));
        *json = lb_wire_bytes_get(json_object_get(message, "json"));
    }
    json_decref(message);
    return status;
}
