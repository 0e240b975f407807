/* What a deadline did to an answer, as text and in the run's counts. */
#ifndef LB_RUN_HASTE_H
#define LB_RUN_HASTE_H

#include "run/run.h"

/* elapsed_s: the question's, from its video's path to its answer. text: [n] "--deadline 4s: 5 of 8 frames, 2 crops a
 * frame, it took 4.1 s"; "" where there is no deadline, or it did nothing and was kept. */
void lb_haste_note(const lb_run_params *params, const lb_engine_reply *reply, double elapsed_s, lb_run_result *result,
                   char *text, size_t n);

#endif
