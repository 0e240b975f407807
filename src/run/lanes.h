/* Several engines at once: the devices that the first one leaves idle are dealt to further lanes (lane.h), each with a
 * thread and an engine of its own, over the same queue of videos.
 *
 *     lb_lanes_start_early(r, plan);   // when the first engine's plan is made: all are loaded at once
 *     lb_lanes_deal(r, plan, &error);  // unless that was done
 *     lb_lanes_begin(r);               // they may answer, as soon as they are loaded
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

/* How many engines there are to be, and which devices, budgets and share of --ram each of them has; once. state: of the
 * first engine. Errors: INVALID_ARGUMENT: more engines were asked for than there can be. */
lb_status lb_lanes_deal(struct lb_run *r, const lb_child_state *state, lb_error *error);

/* Deals, and starts the other engines while the first one is still being loaded. They tell nobody and touch nothing of
 * the run's before lb_lanes_begin. */
void lb_lanes_start_early(struct lb_run *r, const lb_child_state *state);

/* Starts the others' engines, unless they are, and lets them work. A lane that cannot begin is left out with a warning.
 */
void lb_lanes_begin(struct lb_run *r);

/* The first engine could not be loaded, and its next plan may be another: the others end, all devices are its. */
void lb_lanes_undo(struct lb_run *r);

/* Of a lane's thread. False: there is nothing to begin with. */
bool lb_lanes_wait_for_begin(struct lb_run *r);

/* Answers videos until there is none left for this lane. */
void lb_lanes_work(lb_lane *lane);

void lb_lanes_rest(struct lb_run *r);

/* What was planned against what was measured, told for each engine; one that died has nothing to tell. */
void lb_lanes_tell_memory(struct lb_run *r);

/* Ends all engines and threads. Also for a run that ended before it had any. */
void lb_lanes_end(struct lb_run *r);

#endif
