/* A run while it goes on. Private to run.c and run_begin.c. */
#ifndef LB_RUN_INTERNAL_H
#define LB_RUN_INTERNAL_H

#include "run/paths.h"
#include "run/resume.h"
#include "run/settings.h"
#include "run/sights.h"
#include "run/sources.h"
#include "run/work.h"

typedef struct lb_run {
    const lb_run_params *params;
    lb_run_observer observer;
    lb_run_result *result;
    lb_dataset *dataset;
    lb_dump_names names;
    lb_settings settings;
    lb_sources *sources;
    lb_sights *sights; /* NULL: nothing is kept between runs */
    lb_journal *journal;
    lb_resume resume;
    lb_child *child;
    lb_child_params child_params; /* the next child's: with fewer bytes after one that found no memory */
    lb_device_order order;        /* what child_params.order points to */
    lb_work *work;                /* NULL: no memory plan */
    int videos_lost;              /* in a row, see VIDEOS_LOST_MAX */
    bool given_up;                /* no child is started any more */
    lb_error last_death;
    lb_status journal_status; /* not OK: answers cannot be stored any more, the run ends */
    lb_error journal_error;
    double start_s;
    const char *next_video;
} lb_run;

static inline bool lb_run_cancelled(const lb_run *r) {
    return r->params->cancel && *r->params->cancel;
}

static inline void lb_run_warn(const lb_run *r, const char *message) {
    if (r->observer.warning)
        r->observer.warning(message, r->observer.user);
}

/* Whether another plan, with less memory, may be tried: only where there is one. */
bool lb_run_can_retry(const lb_run *r);

/* Another process took the memory, or more was needed than planned: ggml aborts, or an allocation of ours failed. */
bool lb_run_is_memory_death(const lb_error *cause);

/* The files that the answers come from; those that are missing the engine child tells of. */
lb_status lb_run_look_at_weights(lb_run *r, lb_error *error);

/* Opens the journal of the run to go on with, where there is one, and sees that its answers and those to come belong
 * together. */
lb_status lb_run_resume(lb_run *r, lb_error *error);
lb_status lb_run_load_stored(lb_run *r, lb_error *error); /* and what its videos are now */
bool lb_run_needs_engine(const lb_run *r);
lb_status lb_run_find_work(lb_run *r, lb_error *error); /* for a memory plan: what is asked for at most */
lb_status lb_run_start_engine(lb_run *r, lb_error *error);
lb_status lb_run_begin_journal(lb_run *r, lb_error *error); /* a new one, unless there is one to go on with */

#endif
