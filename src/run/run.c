#include "run/run_internal.h"

#include "base/error.h"
#include "base/file.h"
#include "base/time.h"
#include "memory/host.h"
#include "run/npy.h"
#include "run/haste.h"
#include "run/output.h"
#include "run/prefetch.h"
#include "vlm/encoder.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    STARTS_MAX = 3,       /* children in a row that could not load the models: none will */
    GROUP_DEATHS_MAX = 5, /* deaths at one video with no answer in between: the rest of its questions is not asked */
    RETRIES_MAX = 6,      /* smaller plans, one after the other, when the device runs out of memory; see planner.c */
    VIDEOS_LOST_MAX = 3   /* videos in a row that ended so: it is not the video */
};

lb_run_params lb_run_default_params(void) {
    return (lb_run_params){
        .out = ".",
        .cache_dir_limit = (size_t)20 << 30,
        .clip = {.frames = lb_frames_default_params(), .max_tiles = 1},
        .child = {.engine = lb_engine_default_params()},
    };
}

static void store(lb_run *r, lb_journal_record *record) {
    lb_run_result *result = r->result;
    if (r->journal_status != LB_STATUS_OK)
        return;
    const lb_question *q = &r->dataset->question[record->index];
    record->id = q->id;
    record->video_path = q->video_path ? q->video_path : "";
    record->n_choices = q->n_choices;
    record->truth = q->answer;
    const char *fitted = r->child && r->work ? lb_child_get_state(r->child)->adapted : NULL;
    char both[1024];
    if (fitted && *fitted && record->adapted) {
        snprintf(both, sizeof both, "%s; %s", fitted, record->adapted);
        record->adapted = both;
    } else if (!record->adapted) {
        record->adapted = fitted && *fitted ? fitted : NULL;
    }
    record->device_bytes = r->child ? (int64_t)lb_child_get_state(r->child)->reserved_bytes : -1;
    r->journal_status = lb_journal_append(r->journal, record, &r->journal_error);
    if (r->journal_status != LB_STATUS_OK)
        return;
    result->n_answered++;
    result->n_fallback += record->fallback;
    if (record->truth >= 0) {
        result->n_truths++;
        result->n_right += record->letter == record->truth;
    }
    if (r->observer.answered)
        r->observer.answered(result->n_answered, r->dataset->n_questions, record, r->next_video,
                             r->child ? lb_child_get_state(r->child) : NULL, lb_now_s() - r->start_s, r->observer.user);
}

static void store_failure(lb_run *r, size_t index, const char *message) {
    lb_journal_record record = {
        .index = (int64_t)index, .fallback = true, .text = message, .prompt = "", .error = message};
    store(r, &record);
}

/* The journal cannot be kept any more, or must not: the run ends, what was stored stays. */
static void end_run(lb_run *r, const lb_error *error) {
    r->journal_status = error->status;
    r->journal_error = *error;
}

/* A video's questions on their way through the child. */
typedef struct group_state {
    lb_run *run;
    const lb_video_group *group;
    lb_engine_question *questions;
    size_t first, n; /* those of them that the child is sent */
    const lb_clip *clip;
    int deaths;    /* since the last answer */
    bool starved;  /* an answer came that says: out of memory */
    bool smallest; /* no smaller plan is left to try it with */
    bool kept;     /* what the models saw went into the cache's folder */
    int n_empty;   /* the video's boxes without area */
    double lost_s; /* with engines that died of it */
} group_state;

bool lb_run_can_retry(const lb_run *r) {
    return r->work && r->child_params.engine.n_retries < RETRIES_MAX;
}

static bool can_shrink(const group_state *g) {
    return !g->smallest && lb_run_can_retry(g->run);
}

/* Of a question's time, what was spent before this engine had its video. */
static double before_engine_s(const group_state *g) {
    const lb_frames *frames = g->clip->frames;
    return g->lost_s + (frames ? frames->decode_time_s + g->clip->tile_time_s : 0);
}

static void take_reply(const lb_engine_reply *reply, void *user) {
    group_state *g = user;
    const size_t place = g->first + (size_t)reply->question;
    if (!g->questions[place].wanted)
        return;
    if (reply->status == LB_STATUS_OUT_OF_MEMORY && (can_shrink(g) || g->n > 1)) {
        g->starved = true; /* asked again, with a smaller plan, or at last alone */
        snprintf(g->run->last_death.message, sizeof g->run->last_death.message, "%s", reply->message);
        return;
    }
    g->questions[place].wanted = false;
    g->deaths = 0;
    g->run->videos_lost = 0;
    g->n_empty = reply->n_empty;
    bool failed = reply->status != LB_STATUS_OK;
    const double n_sharing = (double)g->group->n_questions;
    const double elapsed_s = before_engine_s(g) + reply->elapsed_s;
    char hurried[256];
    lb_haste_note(g->run->params, reply, elapsed_s, g->run->result, hurried, sizeof hurried);
    lb_journal_record record = {
        .index = (int64_t)g->group->question[place],
        .letter = reply->letter,
        .fallback = reply->fallback,
        .text = failed ? reply->message : reply->text,
        .prompt = reply->prompt,
        .error = failed ? reply->message : NULL,
        .letter_logits = reply->letter_logits,
        .letter_probabilities = reply->letter_probabilities,
        .n_prompt_tokens = reply->n_prompt_tokens,
        .n_new_tokens = reply->n_new_tokens,
        .decode_s = g->clip->frames ? (g->clip->frames->decode_time_s + g->clip->tile_time_s) / n_sharing : 0,
        .detect_s = reply->detect_s / n_sharing,
        .encode_s = reply->encode_s / n_sharing,
        .prompt_s = reply->prompt_s,
        .generate_s = reply->generate_s,
        .elapsed_s = elapsed_s,
        .adapted = hurried[0] ? hurried : NULL,
    };
    store(g->run, &record);
}

static lb_status revive(lb_run *r, lb_error *error) {
    for (int n_starts = 0; !r->child && !r->given_up; n_starts++) {
        if (lb_run_cancelled(r))
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        if (n_starts == STARTS_MAX || r->videos_lost == VIDEOS_LOST_MAX) {
            r->given_up = true;
            break;
        }
        lb_status status = lb_child_start(&r->child_params, r->params->cancel, &r->child, error);
        if (status == LB_STATUS_OK)
            r->result->n_children++;
        else if (status == LB_STATUS_INTERRUPTED || status == LB_STATUS_DOES_NOT_FIT)
            return status;
        else if (r->work && lb_run_is_memory_death(error)) /* what has no room now may have some for the next video */
            return error->status = LB_STATUS_OUT_OF_MEMORY;
        else
            r->last_death = *error;
    }
    if (r->child)
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "not asked, because the engine keeps dying: %s",
                        r->last_death.message);
}

static void bury_child(group_state *g, const lb_error *cause) {
    lb_run *r = g->run;
    char message[sizeof cause->message + 64];
    snprintf(message, sizeof message, "%s; starting another one", cause->message);
    lb_run_warn(r, message);
    lb_child_stop(r->child);
    r->child = NULL;
    g->deaths++;
    r->last_death = *cause;
}

bool lb_run_is_memory_death(const lb_error *cause) {
    return cause->status == LB_STATUS_OUT_OF_MEMORY || strstr(cause->message, "out of memory") ||
           strstr(cause->message, "no room on") || strstr(cause->message, "failed to allocate");
}

/* The child is ended; the next one gets a smaller plan. Does not count as a death at this video. */
static void shrink(group_state *g, const lb_error *cause) {
    bury_child(g, cause);
    g->deaths--;
    g->run->child_params.engine.n_retries++;
}

/* A child for the next attempt: with a smaller plan when there is no memory for this one, with the last that fitted
 * where there is none smaller. */
static lb_status start_fitting(group_state *g, lb_error *error) {
    lb_run *r = g->run;
    for (;;) {
        int *n_retries = &r->child_params.engine.n_retries;
        lb_status status = revive(r, error);
        if (status == LB_STATUS_OUT_OF_MEMORY && can_shrink(g)) {
            ++*n_retries;
        } else if (status == LB_STATUS_DOES_NOT_FIT && *n_retries > 0) {
            --*n_retries;
            g->smallest = true;
        } else {
            return status;
        }
    }
}

/* What the deadline leaves of a question's time; 0: there is none. What is over already is still a little: the engine
 * answers from as little as it can. */
static double left_s(const group_state *g) {
    const double deadline_s = g->run->params->deadline_s, left = deadline_s - before_engine_s(g);
    return deadline_s == 0 ? 0 : left > 1e-3 ? left : 1e-3;
}

/* All of its frames were read. */
static bool is_whole(const group_state *g) {
    return g->clip->frames && g->clip->frames->n_frames == g->run->params->clip.frames.n_frames;
}

/* Has one child answer what is wanted; OK: each has its answer, or the run was cancelled. */
static lb_status ask_child(group_state *g, const char *dump_dir, lb_error *error) {
    lb_run *r = g->run;
    for (;;) {
        lb_status status = start_fitting(g, error);
        if (status != LB_STATUS_OK)
            return status;
        g->starved = false;
        int seen = -1;
        const double start_s = lb_now_s();
        status = lb_child_answer(r->child, g->clip, left_s(g), dump_dir, g->questions + g->first, (int)g->n, take_reply,
                                 g, r->sights && g->clip->seen_fd < 0 && !g->kept && is_whole(g) ? &seen : NULL,
                                 r->params->cancel, error);
        if (seen >= 0)
            lb_sights_keep(r->sights, g->clip->content.sha256, lb_child_get_state(r->child)->vision, seen);
        g->kept |= seen >= 0;
        if (status != LB_STATUS_OK || g->starved)
            g->lost_s += lb_now_s() - start_s;
        if (status == LB_STATUS_OK && g->starved)
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s", r->last_death.message);
        if (status == LB_STATUS_OK)
            break;
        if (g->starved && r->child && !can_shrink(g))
            return status;
        if (lb_run_cancelled(r) || !can_shrink(g) || !lb_run_is_memory_death(error)) {
            bury_child(g, error);
            return status;
        }
        shrink(g, error);
    }
    for (size_t i = g->first; i < g->first + g->n && !lb_run_cancelled(r); i++)
        if (g->questions[i].wanted) /* it had no memory to ask it with, say */
            return lb_error_set(error, LB_STATUS_INTERNAL, "the engine process gave no answer");
    return LB_STATUS_OK;
}

static void fail_question(group_state *g, size_t i, const lb_error *error) {
    g->questions[i].wanted = false;
    store_failure(g->run, g->group->question[i], error->message);
}

/* Questions first to end - 1, each by itself. (Alone its sums are rounded otherwise than in a batch: better than no
 * answer.) One that kills the child gets the cause as the answer's text. */
static void ask_alone(group_state *g, size_t first, size_t end, const char *dump_dir) {
    lb_run *r = g->run;
    for (size_t i = first; i < end && !lb_run_cancelled(r) && r->journal_status == LB_STATUS_OK; i++) {
        if (!g->questions[i].wanted)
            continue;
        lb_error error = {0};
        if (g->deaths >= GROUP_DEATHS_MAX) {
            lb_error_set(&error, LB_STATUS_CHILD_DIED, "not asked, because the engine died %d times at this video: %s",
                         g->deaths, r->last_death.message);
            fail_question(g, i, &error);
            continue;
        }
        g->first = i;
        g->n = 1;
        lb_status status = ask_child(g, dump_dir, &error);
        if (status == LB_STATUS_INTERRUPTED || (status == LB_STATUS_OK && g->questions[i].wanted))
            return; /* cancelled */
        if (g->questions[i].wanted)
            fail_question(g, i, &error);
    }
}

static size_t first_wanted(const group_state *g, size_t from) {
    while (from < g->group->n_questions && !g->questions[from].wanted)
        from++;
    return from;
}

/* Asks all of the group; when the child dies of it twice, the questions of the batch that killed it alone, so that only
 * the one that kills it is lost, and one finds room where a batch does not. Then the rest, as before. */
static void ask_group(group_state *g, const char *dump_dir) {
    lb_run *r = g->run;
    const size_t n = g->group->n_questions;
    const size_t batch = r->result->engine.n_parallel > 0 ? (size_t)r->result->engine.n_parallel : 1;
    size_t next = 0; /* the first that has no answer yet */
    while (next < n && !lb_run_cancelled(r) && r->journal_status == LB_STATUS_OK) {
        lb_error error = {0};
        g->first = 0;
        g->n = n;
        for (int attempt = 0; attempt < 2 && g->deaths < GROUP_DEATHS_MAX && !lb_run_cancelled(r); attempt++)
            if (ask_child(g, dump_dir, &error) == LB_STATUS_OK || g->starved)
                break;
        next = first_wanted(g, next);
        const size_t end = g->deaths >= GROUP_DEATHS_MAX ? n : (next / batch + 1) * batch;
        ask_alone(g, next, end < n ? end : n, dump_dir);
        next = first_wanted(g, next);
    }
    if (g->deaths > 0 && !lb_run_cancelled(r))
        r->videos_lost++;
}

/* What the parent has; the engine adds tiles and detections. */
static lb_status dump_clip(const char *folder, const lb_clip *clip, lb_error *error) {
    const lb_frames *f = clip->frames;
    const int64_t n = f->n_frames;
    lb_status status = lb_folder_make(folder, error);
    if (status == LB_STATUS_OK)
        status = lb_npy_write(folder, "frame_index.npy", "<i8", 1, (int64_t[]){n}, f->index, error);
    if (status == LB_STATUS_OK)
        status = lb_npy_write(folder, "frames.npy", "|u1", 4, (int64_t[]){n, f->height, f->width, 3}, f->data, error);
    return status;
}

/* place: of the group; turn: among those that are asked. */
static void answer_group(lb_run *r, size_t place, size_t turn, lb_prefetch *prefetch) {
    const lb_video_group *group = &r->dataset->group[place];
    lb_error error = {0};
    lb_clip *clip = NULL;
    char *dump_dir = r->names.video ? r->names.video[place] : NULL;
    r->next_video = group->video_path;
    /* without an engine no video is read any more */
    lb_status status = r->given_up ? revive(r, &error) : lb_prefetch_take(prefetch, turn, &clip, &error);
    if (status == LB_STATUS_OK) {
        r->result->n_videos++;
        r->result->n_cached += clip->seen_fd >= 0;
        if (lb_resume_bind_video(&r->resume, r->journal, group, &clip->content, &error) != LB_STATUS_OK) {
            end_run(r, &error);
            lb_prefetch_give_back(prefetch, clip);
            return;
        }
        if (dump_dir)
            status = dump_clip(dump_dir, clip, &error);
    }
    lb_engine_question *questions = calloc(group->n_questions, sizeof *questions);
    if (status == LB_STATUS_OK && !questions)
        status = lb_error_set(&error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    if (status == LB_STATUS_OK) {
        for (size_t i = 0; i < group->n_questions; i++) {
            const lb_question *q = &r->dataset->question[group->question[i]];
            questions[i] = (lb_engine_question){.id = q->id,
                                                .text = q->text,
                                                .choices = (const char *const *)q->choice,
                                                .n_choices = q->n_choices,
                                                .wanted = !r->resume.stored[q->index],
                                                .dump_dir = r->names.question ? r->names.question[q->index] : NULL};
        }
        group_state g = {.run = r, .group = group, .questions = questions, .n = group->n_questions, .clip = clip};
        ask_group(&g, dump_dir);
        r->result->n_empty += (size_t)g.n_empty;
    } else if (!(status == LB_STATUS_INTERRUPTED && lb_run_cancelled(r))) {
        for (size_t i = 0; i < group->n_questions; i++)
            if (!r->resume.stored[group->question[i]])
                store_failure(r, group->question[i], error.message);
    }
    free(questions);
    lb_prefetch_give_back(prefetch, clip);
}

/* For clips: --cache, as far as --ram leaves it beside what the engine has in host memory. */
static size_t clip_limit(const lb_run *r) {
    const lb_engine_params *e = &r->params->child.engine;
    const size_t most = e->cache_bytes > 0 ? e->cache_bytes : lb_host_default_cache();
    const size_t rest = r->child ? lb_child_get_state(r->child)->host_bytes : 0;
    if (e->ram_bytes == 0)
        return most;
    const size_t left = e->ram_bytes > rest ? e->ram_bytes - rest : 1; /* 0 would be no limit */
    return left < most ? left : most;
}

static lb_status answer_all(lb_run *r, lb_error *error) {
    const lb_run_params *p = r->params;
    const lb_dataset *dataset = r->dataset;
    for (size_t i = 0; i < dataset->n_questions; i++)
        if (dataset->question[i].fault && !r->resume.stored[i])
            store_failure(r, i, dataset->question[i].fault);
    if (dataset->n_groups == 0)
        return LB_STATUS_OK;
    const char **paths = calloc(dataset->n_groups, sizeof *paths);
    size_t *places = calloc(dataset->n_groups, sizeof *places), n = 0; /* the groups that are asked */
    char *questions_path = strdup(p->questions_path);
    lb_prefetch *prefetch = NULL;
    lb_status status =
        paths && places && questions_path ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    if (status == LB_STATUS_OK) {
        for (size_t i = 0; i < dataset->n_groups; i++)
            if (lb_resume_is_wanted(&r->resume, &dataset->group[i])) {
                paths[n] = dataset->group[i].video_path;
                places[n++] = i;
            }
        lb_prefetch_params params = {.clip = p->clip,
                                     .base = p->videos ? p->videos : dirname(questions_path),
                                     .allow_outside = p->allow_outside,
                                     .cancel = p->cancel,
                                     .n_threads = p->n_decoders,
                                     .n_ahead = p->n_ahead,
                                     .max_bytes = clip_limit(r)};
        if (n > 0) {
            const lb_child_state *engine = lb_child_get_state(r->child);
            params.clip.tile_size = engine->image_size;
            params.clip.shortest_edge = engine->shortest_edge;
            params.clip.longest_edge = engine->longest_edge;
            /* half of the time for reading; the models make do with what is left */
            params.clip.frames.enough_s = p->deadline_s / 2;
            params.sights = p->dump ? NULL : r->sights; /* a dump needs the frames */
            status = lb_prefetch_start(paths, n, &params, &prefetch, error);
        }
    }
    for (size_t i = 0; i < n && status == LB_STATUS_OK; i++) {
        if (lb_run_cancelled(r))
            break;
        if (r->params->child.engine.ram_bytes > 0)
            lb_prefetch_set_limit(prefetch, clip_limit(r)); /* another child may have another plan */
        answer_group(r, places[i], i, prefetch);
        lb_error late = {0};
        if (r->journal_status == LB_STATUS_OK && lb_sources_ready(r->sources) &&
            lb_sources_finish(r->sources, NULL, r->journal, r->result->db_path, &late) != LB_STATUS_OK)
            end_run(r, &late);
        if (r->journal_status != LB_STATUS_OK) {
            status = r->journal_status;
            if (error)
                *error = r->journal_error;
        }
    }
    lb_prefetch_stop(prefetch);
    free(paths);
    free(places);
    free(questions_path);
    return status;
}

static lb_status read_questions(lb_run *r, lb_error *error) {
    lb_fault_list faults = {0};
    lb_dataset_params params = {.max_questions = r->params->max_questions};
    lb_status status = lb_dataset_read(r->params->questions_path, &params, &r->dataset, &faults, error);
    for (size_t i = 0; i < faults.n; i++)
        if (r->observer.fault)
            r->observer.fault(faults.fault[i].message, r->observer.user);
    if (status == LB_STATUS_OK && faults.n > 0 && !r->params->keep_going)
        status = lb_error_set(error, LB_STATUS_FORMAT,
                              "%s: %zu fault%s; nothing was asked. --keep-going asks the other questions",
                              r->params->questions_path, faults.n, faults.n == 1 ? "" : "s");
    if (status == LB_STATUS_OK && r->dataset->n_questions == 0)
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: no questions in it", r->params->questions_path);
    lb_fault_list_free(&faults);
    return status;
}

/* One wrong option, rather than every video of the file missing. */
static lb_status check_videos(const char *videos, lb_error *error) {
    struct stat st;
    if (videos && stat(videos, &st) != 0)
        return lb_error_set(error, LB_STATUS_NOT_FOUND, "--videos %s: %s", videos, strerror(errno));
    if (videos && !S_ISDIR(st.st_mode))
        return lb_error_set(error, LB_STATUS_NOT_FOUND, "--videos %s: is no folder; video_path starts there", videos);
    return LB_STATUS_OK;
}

lb_status lb_run_plan(const lb_run_params *params, const lb_run_observer *observer, char **text, char **json,
                      lb_error *error) {
    *text = *json = NULL;
    lb_run_result result = {0};
    lb_run r = {.params = params, .result = &result};
    if (observer)
        r.observer = *observer;
    lb_status status = read_questions(&r, error);
    if (status == LB_STATUS_OK)
        status = check_videos(params->videos, error);
    if (status == LB_STATUS_OK)
        status = lb_run_find_work(&r, error);
    if (status == LB_STATUS_OK)
        status = lb_child_plan(&r.child_params, params->cancel, text, json, error);
    lb_work_free(r.work);
    lb_dataset_free(r.dataset);
    return status;
}

/* What was planned against what was measured, told once; an engine that died has nothing to tell. */
static void tell_memory(lb_run *r) {
    char *text = NULL, *json = NULL;
    lb_error ignored = {0};
    if (!r->child || !r->work)
        return;
    if (lb_child_memory(r->child, r->params->cancel, &text, &json, &ignored) == LB_STATUS_OK && text &&
        r->observer.memory)
        r->observer.memory(text, json, r->observer.user);
    free(text);
    free(json);
}

lb_status lb_run_answer(const lb_run_params *params, const lb_run_observer *observer, lb_run_result *result,
                        lb_error *error) {
    *result = (lb_run_result){0};
    lb_run r = {.params = params, .result = result};
    if (observer)
        r.observer = *observer;
    lb_status status = lb_journal_check_columns(params->columns, error);
    if (status == LB_STATUS_OK)
        status = read_questions(&r, error);
    if (status == LB_STATUS_OK) {
        result->n_questions = r.dataset->n_questions;
        status = lb_output_paths(params->out, params->child.engine.vlm.model_path, result->csv_path, result->db_path,
                                 sizeof result->csv_path, error);
    }
    if (status == LB_STATUS_OK && params->child.trace)
        status = lb_ledger_trace(params->child.trace, error);
    if (status == LB_STATUS_OK)
        status = check_videos(params->videos, error);
    if (status == LB_STATUS_OK)
        status = lb_settings_collect(&r.settings, params, r.dataset, error);
    if (status == LB_STATUS_OK)
        status = lb_run_look_at_weights(&r, error);
    if (status == LB_STATUS_OK)
        status = lb_run_resume(&r, error);
    if (status == LB_STATUS_OK)
        status = lb_run_load_stored(&r, error);
    if (status == LB_STATUS_OK && params->dump)
        status = lb_dump_names_make(params->dump, r.dataset, &r.names, error);
    if (status == LB_STATUS_OK && params->dump)
        status = lb_folder_make(params->dump, error); /* now, rather than a failure for each question */
    /* the models before the journal: a run that cannot begin leaves no file behind */
    if (status == LB_STATUS_OK && lb_run_needs_engine(&r))
        status = lb_run_start_engine(&r, error);
    if (status == LB_STATUS_OK && r.child && params->child.engine.cache_dir)
        status = lb_sights_open(params, lb_child_get_state(r.child), r.sources, &r.sights, error);
    if (status == LB_STATUS_OK)
        status = lb_run_begin_journal(&r, error);
    if (status == LB_STATUS_OK) {
        r.start_s = lb_now_s();
        lb_sources_hash(r.sources);
        status = answer_all(&r, error);
        result->seconds = lb_now_s() - r.start_s;
        result->interrupted = lb_run_cancelled(&r) && result->n_answered < result->n_questions;
        if (r.child)
            result->engine = *lb_child_get_state(r.child);
        if (status == LB_STATUS_OK)
            tell_memory(&r);
        if (status == LB_STATUS_OK)
            status = lb_sources_finish(r.sources, params->cancel, r.journal, result->db_path, error);
        if (status == LB_STATUS_OK)
            status = lb_journal_write_csv(r.journal, result->csv_path, params->columns, error);
        if (status != LB_STATUS_OK && result->n_answered > 0 && error)
            lb_error_add(error, "; %zu of %zu answers are stored: --resume goes on from there", result->n_answered,
                         result->n_questions);
    }
    lb_sights_close(r.sights);
    lb_sources_free(r.sources);
    lb_journal_close(r.journal);
    lb_child_stop(r.child);
    result->engine.plan_text = result->engine.plan_json = result->engine.adapted = NULL; /* went with the child */
    lb_work_free(r.work);
    lb_resume_free(&r.resume);
    lb_settings_free(&r.settings);
    lb_dump_names_free(&r.names);
    lb_dataset_free(r.dataset);
    (void)lb_ledger_trace(NULL, NULL);
    return status;
}
