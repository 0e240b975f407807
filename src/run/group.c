#include "run/run_internal.h"

#include "base/error.h"
#include "base/file.h"
#include "base/time.h"
#include "run/haste.h"
#include "run/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GROUP_DEATHS_MAX = 5 /* deaths at one video with no answer in between: the rest of its questions is not asked */
};

/* A group in the hands of one lane. */
typedef struct asking {
    lb_lane *lane;
    lb_run *run;
    lb_group *group;
    lb_engine_question *questions;
    size_t first, n; /* those of them that the child is sent */
    const char *dump_dir;
    int deaths;    /* since the last answer */
    bool starved;  /* an answer came that says: out of memory */
    bool smallest; /* no smaller plan is left to try it with */
    bool sound;    /* the lane answered the last time it was asked: its device is not what engines die of */
} asking;

static bool can_shrink(const asking *a) {
    return !a->smallest && lb_lane_can_retry(a->lane);
}

/* Of a question's time, what was spent before this engine had its video. */
static double before_engine_s(const asking *a) {
    const lb_clip *clip = a->group->clip;
    return a->group->lost_s + (clip->frames ? clip->frames->decode_time_s + clip->tile_time_s : 0);
}

static void take_reply(const lb_engine_reply *reply, void *user) {
    asking *a = user;
    const size_t place = a->first + (size_t)reply->question;
    if (!a->questions[place].wanted)
        return;
    if (reply->status == LB_STATUS_OUT_OF_MEMORY && (can_shrink(a) || a->n > 1)) {
        a->starved = true; /* asked again, with a smaller plan, or at last alone */
        snprintf(a->lane->last_death.message, sizeof a->lane->last_death.message, "%s", reply->message);
        return;
    }
    a->questions[place].wanted = false;
    a->deaths = 0;
    a->lane->videos_lost = 0;
    a->lane->answered = true;
    a->group->n_empty = reply->n_empty;
    bool failed = reply->status != LB_STATUS_OK;
    const lb_clip *clip = a->group->clip;
    const double n_sharing = (double)a->group->video->n_questions;
    const double elapsed_s = before_engine_s(a) + reply->elapsed_s;
    char hurried[256];
    pthread_mutex_lock(&a->run->mutex);
    lb_haste_note(a->run->params, reply, elapsed_s, a->run->result, hurried, sizeof hurried);
    pthread_mutex_unlock(&a->run->mutex);
    lb_journal_record record = {
        .index = (int64_t)a->group->video->question[place],
        .letter = reply->letter,
        .fallback = reply->fallback,
        .text = failed ? reply->message : reply->text,
        .prompt = reply->prompt,
        .error = failed ? reply->message : NULL,
        .letter_logits = reply->letter_logits,
        .letter_probabilities = reply->letter_probabilities,
        .n_prompt_tokens = reply->n_prompt_tokens,
        .n_new_tokens = reply->n_new_tokens,
        .decode_s = clip->frames ? (clip->frames->decode_time_s + clip->tile_time_s) / n_sharing : 0,
        .detect_s = reply->detect_s / n_sharing,
        .encode_s = reply->encode_s / n_sharing,
        .prompt_s = reply->prompt_s,
        .generate_s = reply->generate_s,
        .elapsed_s = elapsed_s,
        .adapted = hurried[0] ? hurried : NULL,
    };
    lb_run_store(a->lane, &record);
}

static void bury(asking *a, const lb_error *cause) {
    lb_lane_bury(a->lane, cause);
    a->deaths++;
}

/* The child is ended; the next one gets a smaller plan. Does not count as a death at this video. */
static void shrink(asking *a, const lb_error *cause) {
    lb_lane_bury(a->lane, cause);
    a->lane->child_params.engine.n_retries++;
}

/* What the deadline leaves of a question's time; 0: there is none. What is over already is still a little: the engine
 * answers from as little as it can. */
static double left_s(const asking *a) {
    const double deadline_s = a->run->params->deadline_s, left = deadline_s - before_engine_s(a);
    return deadline_s == 0 ? 0 : left > 1e-3 ? left : 1e-3;
}

/* What the models see of it may be kept: all of its frames were read, and on a device like the first lane's. */
static bool is_worth_keeping(const asking *a) {
    const lb_clip *clip = a->group->clip;
    return a->run->sights && clip->seen_fd < 0 && !a->group->kept && a->lane->as_first && clip->frames &&
           clip->frames->n_frames == a->run->params->clip.frames.n_frames;
}

/* Has one child answer what is wanted; OK: each has its answer, or the run was cancelled. */
static lb_status ask_child(asking *a, lb_error *error) {
    lb_run *r = a->run;
    lb_lane *lane = a->lane;
    for (;;) {
        lb_status status = lb_lane_fit(lane, &a->smallest, error);
        if (status != LB_STATUS_OK)
            return status;
        a->starved = false;
        int seen = -1;
        const double start_s = lb_now_s();
        status =
            lb_child_answer(lane->child, a->group->clip, left_s(a), a->dump_dir, a->questions + a->first, (int)a->n,
                            take_reply, a, is_worth_keeping(a) ? &seen : NULL, r->params->cancel, error);
        if (seen >= 0)
            lb_sights_keep(r->sights, a->group->clip->content.sha256, lb_child_get_state(lane->child)->vision, seen);
        a->group->kept |= seen >= 0;
        if (status != LB_STATUS_OK || a->starved)
            a->group->lost_s += lb_now_s() - start_s;
        if (status == LB_STATUS_OK && a->starved)
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s", lane->last_death.message);
        if (status == LB_STATUS_OK)
            break;
        if (a->starved && lane->child && !can_shrink(a))
            return status;
        if (lb_run_cancelled(r) || !can_shrink(a) || !lb_run_is_memory_death(error)) {
            bury(a, error);
            return status;
        }
        shrink(a, error);
    }
    for (size_t i = a->first; i < a->first + a->n && !lb_run_cancelled(r); i++)
        if (a->questions[i].wanted) /* it had no memory to ask it with, say */
            return lb_error_set(error, LB_STATUS_INTERNAL, "the engine process gave no answer");
    return LB_STATUS_OK;
}

/* This lane's engine gives no answer to question i: the cause is its text, unless another lane is to try, since it may
 * be the device. What kills one engine may well kill all: no lane tries twice, and the second that is sound decides. */
static void lose_question(asking *a, size_t i, const lb_error *error) {
    a->questions[i].wanted = false;
    a->group->tried |= 1u << a->lane->number;
    if (!(a->group->doubted && a->sound) && (lb_lane_others(a->lane) & ~a->group->tried))
        a->group->cause[i] = strdup(error->message);
    if (!a->group->cause[i])
        lb_run_store_failure(a->lane, a->group->video->question[i], error->message);
}

/* Questions first to end - 1, each by itself. (Alone its sums are rounded otherwise than in a batch: better than no
 * answer.) One that kills the child is lost. */
static void ask_alone(asking *a, size_t first, size_t end) {
    for (size_t i = first; i < end && lb_run_goes_on(a->run) && !lb_lane_leaves(a->lane); i++) {
        if (!a->questions[i].wanted)
            continue;
        lb_error error = {0};
        if (a->deaths >= GROUP_DEATHS_MAX) {
            lb_error_set(&error, LB_STATUS_CHILD_DIED, "not asked, because the engine died %d times at this video: %s",
                         a->deaths, a->lane->last_death.message);
            lose_question(a, i, &error);
            continue;
        }
        a->first = i;
        a->n = 1;
        lb_status status = ask_child(a, &error);
        if (status == LB_STATUS_INTERRUPTED || (status == LB_STATUS_OK && a->questions[i].wanted))
            return; /* cancelled */
        if (a->questions[i].wanted && !lb_lane_leaves(a->lane))
            lose_question(a, i, &error);
    }
}

static size_t first_wanted(const asking *a, size_t from) {
    while (from < a->group->video->n_questions && !a->questions[from].wanted)
        from++;
    return from;
}

/* Asks all of the group; when the child dies of it twice, the questions of the batch that killed it alone, so that only
 * the one that kills it is lost, and one finds room where a batch does not. Then the rest, as before. A lane that
 * another one's engine died before of this does not try twice. */
static void ask_all(asking *a) {
    lb_run *r = a->run;
    const size_t n = a->group->video->n_questions;
    const size_t batch = a->lane->n_parallel > 0 ? (size_t)a->lane->n_parallel : 1;
    const int n_attempts = a->group->doubted ? 1 : 2;
    size_t next = first_wanted(a, 0); /* the first that has no answer yet */
    while (next < n && lb_run_goes_on(r) && !lb_lane_leaves(a->lane)) {
        lb_error error = {0};
        a->first = 0;
        a->n = n;
        for (int attempt = 0;
             attempt < n_attempts && a->deaths < GROUP_DEATHS_MAX && lb_run_goes_on(r) && !lb_lane_leaves(a->lane);
             attempt++)
            if (ask_child(a, &error) == LB_STATUS_OK || a->starved)
                break;
        next = first_wanted(a, next);
        const size_t end = a->deaths >= GROUP_DEATHS_MAX ? n : (next / batch + 1) * batch;
        ask_alone(a, next, end < n ? end : n);
        next = first_wanted(a, next);
    }
    if (a->deaths > 0 && !lb_run_cancelled(r))
        a->lane->videos_lost++;
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

static lb_status begin(lb_run *r, lb_group *group, const char *dump_dir, lb_error *error) {
    lb_status status = dump_dir ? dump_clip(dump_dir, group->clip, error) : LB_STATUS_OK;
    if (status != LB_STATUS_OK)
        return status;
    const lb_video_group *video = group->video;
    group->cause = calloc(video->n_questions, sizeof *group->cause);
    group->questions = calloc(video->n_questions, sizeof *group->questions);
    if (!group->questions || !group->cause) {
        lb_group_free(group);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    }
    for (size_t i = 0; i < video->n_questions; i++) {
        const lb_question *q = &r->dataset->question[video->question[i]];
        group->questions[i] = (lb_engine_question){.id = q->id,
                                                   .text = q->text,
                                                   .choices = (const char *const *)q->choice,
                                                   .n_choices = q->n_choices,
                                                   .wanted = !r->resume.stored[q->index],
                                                   .dump_dir = r->names.question ? r->names.question[q->index] : NULL};
    }
    return LB_STATUS_OK;
}

/* Questions that another lane's engine died of are asked again, or (it is this lane after all) lost for good. */
static void take_over(lb_lane *lane, lb_group *group) {
    for (size_t i = 0; i < group->video->n_questions; i++) {
        char *cause = group->cause[i];
        if (!cause)
            continue;
        group->cause[i] = NULL;
        group->doubted = true;
        if (group->tried >> lane->number & 1)
            lb_run_store_failure(lane, group->video->question[i], cause);
        else
            group->questions[i].wanted = true;
        free(cause);
    }
}

void lb_group_answer(lb_lane *lane, lb_group *group, const lb_error *clip_error) {
    lb_run *r = lane->run;
    const char *dump_dir = r->names.video ? r->names.video[group->place] : NULL;
    lb_error error = {0};
    lb_status status = LB_STATUS_OK;
    if (!group->clip)
        status = (error = *clip_error).status;
    else if (group->questions)
        take_over(lane, group);
    else if (!lb_run_bind_video(r, group->video, group->clip))
        return;
    else
        status = begin(r, group, dump_dir, &error);
    if (status == LB_STATUS_OK) {
        asking a = {.lane = lane,
                    .run = r,
                    .group = group,
                    .questions = group->questions,
                    .n = group->video->n_questions,
                    .sound = lane->answered && lane->videos_lost == 0,
                    .dump_dir = dump_dir};
        ask_all(&a);
    } else if (!(status == LB_STATUS_INTERRUPTED && lb_run_cancelled(r))) {
        for (size_t i = 0; i < group->video->n_questions; i++)
            if (!r->resume.stored[group->video->question[i]])
                lb_run_store_failure(lane, group->video->question[i], error.message);
    }
}

bool lb_group_is_open(const lb_group *group) {
    for (size_t i = 0; group->questions && i < group->video->n_questions; i++)
        if (group->questions[i].wanted || group->cause[i])
            return true;
    return false;
}

void lb_group_free(lb_group *group) {
    for (size_t i = 0; group->cause && i < group->video->n_questions; i++)
        free(group->cause[i]);
    free(group->cause);
    free(group->questions);
    group->cause = NULL;
    group->questions = NULL;
}
