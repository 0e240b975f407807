/* Parts of the plan's search. Private to src/memory. */
#ifndef LB_MEMORY_PLAN_INTERNAL_H
#define LB_MEMORY_PLAN_INTERNAL_H

#include "memory/plan.h"

/* The ways to fit, in the order in which they are taken: first those that leave every number as it is, the cheapest
 * first (docs/memory.md has what they cost), then those that round otherwise, then what the user allows, then the
 * layers on the host. */
typedef enum lb_plan_way {
    LB_WAY_REST_COMPUTE,
    LB_WAY_REST_WEIGHTS,
    LB_WAY_REST_CONTEXT,
    LB_WAY_TILE_BATCH,
    LB_WAY_FRAME_BATCH,
    LB_WAY_N_PARALLEL,
    LB_WAY_N_UBATCH,
    LB_WAY_WEIGHTS_Q8,
    LB_WAY_KV_Q8,
    LB_WAY_WEIGHTS_Q4,
    LB_WAY_FEWER_CROPS,
    LB_WAY_FEWER_TILES,
    LB_WAY_COUNT
} lb_plan_way;

enum {
    LB_UBATCH_LEAST = 64,
    LB_UBATCH_MOST = 2048, /* larger ones gain nothing, and libllama is slower with them */
    LB_OTHER_STEPS = 4     /* beside those of the shared prompt: the questions' own tokens, and a few of an answer */
};

/* One step of a way further; false when it is at its end or not allowed. */
bool lb_plan_advance(const lb_plan_request *request, lb_plan_way w, lb_plan_choice *choice);

/* Sets back what a way changed to what it is in `to`. */
void lb_plan_restore(lb_plan_way w, lb_plan_choice *choice, const lb_plan_choice *to);

bool lb_plan_halve(int *value, int least); /* false: it is that already */

/* Who is where in which phase: bytes, peaks and whether they fit, for the plan's choice. */
void lb_plan_fill(lb_plan *plan, const lb_plan_sizes *sizes);

/* What the plan's choice does that the one at the start did not: its steps, and whether answers can change. */
void lb_plan_describe(const lb_plan_request *request, const lb_plan_choice *start, lb_plan *plan);

#endif
