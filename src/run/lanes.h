/* Several engines at once: the devices that the first one leaves idle are dealt to further lanes (lane.h), each with a
 * thread and an engine of its own, over the same queue of videos.
 *
 *     lb_lanes_deal(r, &error);        // after the first engine's plan, before anything is answered
 *     lb_lanes_start(r);               // their engines are loaded while the first one answers
 *     lb_lanes_work(&r->lane[0]);      // this thread is the first lane's
 *     lb_lanes_rest(r);                // all have nothing to do any more; their engines are still there
 *     lb_lanes_end(r);
 *
 * Private to the run.
 */
#ifndef LB_RUN_LANES_H
#define LB_RUN_LANES_H

#include "run/lane.h"

/* How many engines there are to be with this plan, which is the first one's, and so many videos to be asked about.
 * Errors: INVALID_ARGUMENT: more were asked for than there can be. */
lb_status lb_lanes_count(const struct lb_run *r, const lb_child_state *plan, size_t n_videos, int *n, lb_error *error);

/* How many engines there are to be, and which devices, budgets and share of --ram each of them has. Errors:
 * INVALID_ARGUMENT: more engines were asked for than there can be. */
lb_status lb_lanes_deal(struct lb_run *r, lb_error *error);

/* A lane that cannot begin is left out with a warning. */
void lb_lanes_start(struct lb_run *r);

/* Answers videos until there is none left for this lane. */
void lb_lanes_work(lb_lane *lane);

void lb_lanes_rest(struct lb_run *r);

/* What was planned against what was measured, told for each engine; one that died has nothing to tell. */
void lb_lanes_tell_memory(struct lb_run *r);

/* Ends all engines and threads. Also for a run that ended before it had any. */
void lb_lanes_end(struct lb_run *r);

#endif
