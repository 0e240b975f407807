/* A lane of a run: devices of its own, an engine child on them (one after the other, when they die), and one thread of
 * the parent that drives it. The first lane is the main thread's; with one engine there is no other.
 *
 *     while (lb_queue_next(lane, &group, &error))           // queue.h
 *         lb_group_answer(lane, group, &error);             // group.h: lb_lane_fit, then lane->child is asked
 *
 * A child must not outlive the thread that started it: it asked the kernel to be killed when that ends
 * (PR_SET_PDEATHSIG). Private to the run.
 */
#ifndef LB_RUN_LANE_H
#define LB_RUN_LANE_H

#include "run/child.h"

#include <pthread.h>

struct lb_run;

typedef enum lb_lane_state {
    LB_LANE_NONE,
    LB_LANE_STARTING, /* its first engine is being started */
    LB_LANE_LIVES,
    LB_LANE_OUT /* it has no engine and gets none any more */
} lb_lane_state;

typedef struct lb_lane {
    struct lb_run *run;
    int number; /* 0: the main thread's */
    /* The driving thread's. Whoever else looks does so when it has come to rest. */
    lb_child *child;
    lb_child_params child_params; /* the next child's: with fewer bytes after one that found no memory */
    lb_device_order order;        /* what child_params.order points to */
    int n_parallel;               /* questions that share a batch: of its first child */
    int videos_lost;              /* in a row, see VIDEOS_LOST_MAX */
    bool answered;                /* something */
    bool given_up;                /* no child is started any more */
    bool gave_way; /* that, for lack of memory while others had theirs: not for good, see lb_lane_come_back_locked */
    bool as_first; /* its device is of the first lane's kind: what its models see may be kept with that */
    lb_error last_death;
    const char *video; /* that is being answered */
    pthread_t thread;
    bool has_thread;
    /* The run's mutex holds these. */
    lb_lane_state state;
    bool rests;        /* has nothing to do any more */
    size_t host_bytes; /* of its engine: weights in host memory and a video's embeddings */
    /* Set when there is something for it to take other than the next video. */
    atomic_bool called;
} lb_lane;

/* Makes r->lane[number], with the run's parameters for its children and no devices of its own yet. */
void lb_lane_init(struct lb_run *r, int number);

/* "", or "engine 2 (CUDA1): " where there are several. */
void lb_lane_name(const lb_lane *lane, char *text, size_t n);

/* Whether another plan, with less memory, may be tried: only where there is one. */
bool lb_lane_can_retry(const lb_lane *lane);

/* Starts a child, once. stop: as lb_child_start's cancel. */
lb_status lb_lane_open(lb_lane *lane, const atomic_bool *stop, lb_error *error);

/* The first child of a lane that is not the first: a few tries, and smaller plans where there is no memory. */
lb_status lb_lane_start(lb_lane *lane, const atomic_bool *stop, lb_error *error);

/* A child for the next attempt, unless there is one: with a smaller plan when there is no memory for this one, with the
 * last that fitted where there is none smaller (*smallest). Errors: INTERRUPTED; what keeps it from starting. The lane
 * may be given up then. */
lb_status lb_lane_fit(lb_lane *lane, bool *smallest, lb_error *error);

/* Ends a child that died or is of no use, and says so. */
void lb_lane_bury(lb_lane *lane, const lb_error *cause);

/* No child is started in it any more; said where there are several lanes. The child is to be ended before. */
void lb_lane_give_up(lb_lane *lane, const lb_error *cause);

/* One that gave way to others for lack of memory is not given up any more once none of them is left: its memory may be
 * back, and nobody else answers. The run's mutex is held. */
void lb_lane_come_back_locked(lb_lane *lane);

/* Lanes but this one that have an engine or may get one, bit i for lane i. _locked: with the run's mutex held. */
unsigned lb_lane_others(lb_lane *lane);
unsigned lb_lane_others_locked(const lb_lane *lane);

/* This one is given up, and what it has not answered is others'. */
bool lb_lane_leaves(lb_lane *lane);

#endif
