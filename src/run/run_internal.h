/* A run while it goes on. Private to the run: run.c, run_begin.c, run_store.c, lanes.c, lane.c, queue.c and group.c. */
#ifndef LB_RUN_INTERNAL_H
#define LB_RUN_INTERNAL_H

#include "run/lane.h"
#include "run/paths.h"
#include "run/queue.h"
#include "run/resume.h"
#include "run/settings.h"
#include "run/sights.h"
#include "run/sources.h"
#include "run/work.h"

typedef struct lb_run {
    const lb_run_params *params;
    lb_dataset *dataset;
    lb_dump_names names;
    lb_settings settings;
    lb_sources *sources;
    lb_sights *sights; /* NULL: nothing is kept between runs */
    lb_resume resume;
    lb_work *work; /* NULL: no memory plan */
    double start_s;
    lb_lane lane[LB_DEVICES_MAX];
    int n_lanes;
    atomic_bool stop;  /* engines that are still being started are not needed any more */
    atomic_bool ended; /* answers cannot be stored any more: journal_error says why */
    /* Held by the mutex as soon as there are several lanes; the journal and the observer are called with it held. */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* the queue, a lane's state */
    lb_run_observer observer;
    lb_run_result *result;
    lb_journal *journal;
    lb_error journal_error;
    lb_queue queue;
    bool dealt;                                         /* devices to lanes */
    lb_device_order all_devices;                        /* before that */
    char numbers[sizeof((lb_child_state *)0)->numbers]; /* of the first engine's plan */
    bool started;                                       /* the threads of the other lanes */
    /* Held by the mutex. */
    bool begun;   /* the first engine is there, and the journal: others may answer */
    bool closing; /* lanes at rest end their engines and threads */
} lb_run;

static inline bool lb_run_cancelled(const lb_run *r) {
    return r->params->cancel && *r->params->cancel;
}

/* Whether another question is to be asked. */
static inline bool lb_run_goes_on(const lb_run *r) {
    return !lb_run_cancelled(r) && !r->ended;
}

/* Another process took the memory, or more was needed than planned: ggml aborts, or an allocation of ours failed. */
bool lb_run_is_memory_death(const lb_error *cause);

/* run_store.c: any thread that does not hold the mutex. */
void lb_run_warn(lb_run *r, const char *message);
void lb_run_store(lb_lane *lane, lb_journal_record *record);
void lb_run_store_failure(lb_lane *lane, size_t index, const char *message);
/* The journal cannot be kept any more, or must not: the run ends, what was stored stays. */
void lb_run_end(lb_run *r, const lb_error *error);
/* What a video's clip says of the run, when it is about to be answered. False: the run ended. */
bool lb_run_bind_video(lb_run *r, const lb_video_group *group, const lb_clip *clip);
/* The hashes of the weights, when they are known. */
void lb_run_finish_sources(lb_run *r);

/* The files that the answers come from; those that are missing the engine child tells of. */
lb_status lb_run_look_at_weights(lb_run *r, lb_error *error);

/* Opens the journal of the run to go on with, where there is one, and sees that its answers and those to come belong
 * together. */
lb_status lb_run_resume(lb_run *r, lb_error *error);
lb_status lb_run_load_stored(lb_run *r, lb_error *error); /* and what its videos are now */
lb_status lb_run_find_work(lb_run *r, lb_error *error);   /* for a memory plan: what is asked for at most */
lb_status lb_run_start_engine(lb_run *r, lb_error *error);
lb_status lb_run_begin_journal(lb_run *r, lb_error *error); /* a new one, unless there is one to go on with */

#endif
