/* What the lanes of a run share when an answer is there: journal, counts, observer. One at a time. */
#include "run/run_internal.h"

#include "base/error.h"
#include "base/time.h"

#include <stdio.h>

void lb_run_warn(lb_run *r, const char *message) {
    pthread_mutex_lock(&r->mutex);
    if (r->observer.warning)
        r->observer.warning(message, r->observer.user);
    pthread_mutex_unlock(&r->mutex);
}

/* The mutex is held. */
static void end_run(lb_run *r, const lb_error *error) {
    if (!r->ended)
        r->journal_error = *error;
    r->ended = true;
    for (int i = 0; i < r->n_lanes; i++)
        r->lane[i].called = true; /* none waits for a clip any more */
    pthread_cond_broadcast(&r->changed);
}

void lb_run_end(lb_run *r, const lb_error *error) {
    pthread_mutex_lock(&r->mutex);
    end_run(r, error);
    pthread_mutex_unlock(&r->mutex);
}

static void store(lb_lane *lane, lb_journal_record *record) {
    lb_run *r = lane->run;
    lb_run_result *result = r->result;
    const lb_child_state *engine = lane->child ? lb_child_get_state(lane->child) : NULL;
    if (r->ended)
        return;
    const lb_question *q = &r->dataset->question[record->index];
    record->id = q->id;
    record->video_path = q->video_path ? q->video_path : "";
    record->n_choices = q->n_choices;
    record->truth = q->answer;
    const char *fitted = engine && r->work ? engine->adapted : NULL;
    char both[1024];
    if (fitted && *fitted && record->adapted) {
        snprintf(both, sizeof both, "%s; %s", fitted, record->adapted);
        record->adapted = both;
    } else if (!record->adapted) {
        record->adapted = fitted && *fitted ? fitted : NULL;
    }
    record->device_bytes = engine ? (int64_t)engine->reserved_bytes : -1;
    lb_error error = {0};
    if ((error.status = lb_journal_append(r->journal, record, &error)) != LB_STATUS_OK) {
        end_run(r, &error);
        return;
    }
    result->n_answered++;
    result->n_fallback += record->fallback;
    if (record->truth >= 0) {
        result->n_truths++;
        result->n_right += record->letter == record->truth;
    }
    if (r->observer.answered)
        r->observer.answered(result->n_answered, r->dataset->n_questions, record, lane->video, engine,
                             lb_now_s() - r->start_s, r->observer.user);
}

void lb_run_store(lb_lane *lane, lb_journal_record *record) {
    pthread_mutex_lock(&lane->run->mutex);
    store(lane, record);
    pthread_mutex_unlock(&lane->run->mutex);
}

void lb_run_store_failure(lb_lane *lane, size_t index, const char *message) {
    lb_journal_record record = {
        .index = (int64_t)index, .fallback = true, .text = message, .prompt = "", .error = message};
    lb_run_store(lane, &record);
}

bool lb_run_bind_video(lb_run *r, const lb_video_group *group, const lb_clip *clip) {
    lb_error error = {0};
    pthread_mutex_lock(&r->mutex);
    if (!r->ended) {
        r->result->n_videos++;
        r->result->n_cached += clip->seen_fd >= 0;
        error.status = lb_resume_bind_video(&r->resume, r->journal, group, &clip->content, &error);
        if (error.status != LB_STATUS_OK)
            end_run(r, &error);
    }
    const bool goes_on = !r->ended;
    pthread_mutex_unlock(&r->mutex);
    return goes_on;
}

void lb_run_finish_sources(lb_run *r) {
    lb_error error = {0};
    pthread_mutex_lock(&r->mutex);
    if (!r->ended && lb_sources_ready(r->sources)) {
        error.status = lb_sources_finish(r->sources, NULL, r->journal, r->result->db_path, &error);
        if (error.status != LB_STATUS_OK)
            end_run(r, &error);
    }
    pthread_mutex_unlock(&r->mutex);
}
