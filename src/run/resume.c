#include "run/resume.h"

#include "base/error.h"
#include "run/paths.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>

static const char KIND[] = "video";

typedef struct loader {
    lb_resume *resume;
    const lb_dataset *dataset;
    bool keep_failed;
    lb_run_result *result;
} loader;

static lb_status load_one(const lb_journal_state *state, void *user, lb_error *error) {
    loader *l = user;
    if (state->index < 0 || (size_t)state->index >= l->dataset->n_questions || state->letter < 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: is damaged: an answer to question %lld of %zu",
                            l->result->db_path, (long long)state->index, l->dataset->n_questions);
    const size_t i = (size_t)state->index;
    const lb_question *q = &l->dataset->question[i];
    l->resume->answered[i] = !state->failed;
    l->resume->stored[i] = !state->failed || l->keep_failed;
    if (!l->resume->stored[i]) {
        l->resume->n_again++;
        return LB_STATUS_OK;
    }
    l->resume->n_stored++;
    l->result->n_answered++;
    l->result->n_fallback += state->fallback;
    if (q->answer >= 0) {
        l->result->n_truths++;
        l->result->n_right += state->letter == q->answer;
    }
    return LB_STATUS_OK;
}

lb_status lb_resume_load(lb_resume *resume, lb_journal *journal, const lb_dataset *dataset, bool keep_failed,
                         lb_run_result *result, lb_error *error) {
    *resume = (lb_resume){.stored = calloc(dataset->n_questions + 1, sizeof *resume->stored),
                          .answered = calloc(dataset->n_questions + 1, sizeof *resume->answered)};
    if (!resume->stored || !resume->answered)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %zu questions", dataset->n_questions);
    loader l = {resume, dataset, keep_failed, result};
    return journal ? lb_journal_each(journal, load_one, &l, error) : LB_STATUS_OK;
}

void lb_resume_free(lb_resume *resume) {
    free(resume->stored);
    free(resume->answered);
    *resume = (lb_resume){0};
}

bool lb_resume_is_wanted(const lb_resume *resume, const lb_video_group *group) {
    for (size_t i = 0; i < group->n_questions; i++)
        if (!resume->stored[group->question[i]])
            return true;
    return false;
}

static bool has_answers(const lb_resume *resume, const lb_video_group *group) {
    for (size_t i = 0; i < group->n_questions; i++)
        if (resume->answered[group->question[i]])
            return true;
    return false;
}

static lb_status refuse(lb_error *error, const char *video) {
    return lb_error_set(error, LB_STATUS_REFUSED,
                        "video %.300s: its content is not what the answers that are stored were made from; put the "
                        "former file back, or name another --out",
                        video);
}

static lb_status check_video(const lb_video_group *group, const char *base, bool allow_outside, lb_journal *journal,
                             const atomic_bool *cancel, lb_error *error) {
    lb_fingerprint before, now;
    bool found;
    char *path = NULL;
    lb_status status = lb_journal_get_fingerprint(journal, KIND, group->video_path, &before, &found, error);
    if (status != LB_STATUS_OK || !found)
        return status;
    if (lb_video_path(base, group->video_path, allow_outside, &path, NULL) == LB_STATUS_OK &&
        lb_fingerprint_look(path, &now, NULL) == LB_STATUS_OK && !lb_fingerprint_same_look(&before, &now)) {
        if (before.n_bytes != now.n_bytes)
            status = refuse(error, group->video_path);
        else
            status = lb_fingerprint_content(path, cancel, &now, error);
        if (status == LB_STATUS_OK && strcmp(before.sha256, now.sha256) != 0)
            status = refuse(error, group->video_path);
        if (status == LB_STATUS_OK) /* the time of now: it need not be read again */
            status = lb_journal_put_fingerprint(journal, KIND, group->video_path, &now, error);
    }
    free(path);
    return status;
}

lb_status lb_resume_check_videos(const lb_resume *resume, lb_journal *journal, const lb_run_params *params,
                                 const lb_dataset *dataset, lb_error *error) {
    char *questions_path = strdup(params->questions_path);
    if (!questions_path)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    const char *base = params->videos ? params->videos : dirname(questions_path);
    lb_status status = LB_STATUS_OK;
    for (size_t i = 0; i < dataset->n_groups && status == LB_STATUS_OK; i++) {
        if (params->cancel && *params->cancel)
            status = lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        else if (has_answers(resume, &dataset->group[i]))
            status = check_video(&dataset->group[i], base, params->allow_outside, journal, params->cancel, error);
    }
    free(questions_path);
    return status;
}

lb_status lb_resume_bind_video(const lb_resume *resume, lb_journal *journal, const lb_video_group *group,
                               const lb_fingerprint *content, lb_error *error) {
    lb_fingerprint before;
    bool found;
    lb_status status = lb_journal_get_fingerprint(journal, KIND, group->video_path, &before, &found, error);
    if (status != LB_STATUS_OK)
        return status;
    if (found && has_answers(resume, group))
        return strcmp(before.sha256, content->sha256) == 0 ? LB_STATUS_OK : refuse(error, group->video_path);
    return lb_journal_put_fingerprint(journal, KIND, group->video_path, content, error);
}
