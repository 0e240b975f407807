/* Going on with a run: what of it is stored, and whether the rest would belong to it. */
#ifndef LB_RUN_RESUME_H
#define LB_RUN_RESUME_H

#include "run/run.h"

typedef struct lb_resume {
    bool *stored;             /* [n_questions] not to be asked again */
    bool *answered;           /* [n_questions] by the model: what the video's content is bound by */
    size_t n_stored, n_again; /* n_again: failed ones that are asked again */
} lb_resume;

/* What the journal has of the dataset's questions, counted into result (answered, fallbacks, truths). keep_failed:
 * those that failed count as stored. journal NULL: a new run, nothing is stored. Errors: FORMAT (a question that the
 * file has not), OUT_OF_MEMORY, the journal's. */
lb_status lb_resume_load(lb_resume *resume, lb_journal *journal, const lb_dataset *dataset, bool keep_failed,
                         lb_run_result *result, lb_error *error);
void lb_resume_free(lb_resume *resume);

/* Whether a video has a question to be asked. */
bool lb_resume_is_wanted(const lb_resume *resume, const lb_video_group *group);

/* REFUSED when a video that has answers is not what it was; those whose size and time are as before are not read. One
 * that is gone is refused only by the run, when it has questions left. */
lb_status lb_resume_check_videos(const lb_resume *resume, lb_journal *journal, const lb_run_params *params,
                                 const lb_dataset *dataset, lb_error *error);

/* The content that the answers to come are made from, before the first of them is stored: into the journal, or REFUSED
 * when answers of another content are there. */
lb_status lb_resume_bind_video(const lb_resume *resume, lb_journal *journal, const lb_video_group *group,
                               const lb_fingerprint *content, lb_error *error);

#endif
