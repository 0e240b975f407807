/* From what a run is asked to do to a memory plan, and from the plan to how the engine is opened.
 *
 *     lb_planner *planner;
 *     lb_planner_open(&params, &load, tokenizer, &planner, &error);   // reads headers, loads no weight
 *     lb_plan plan;
 *     lb_status status = lb_planner_make(planner, &plan, &error);     // DOES_NOT_FIT: plan is filled in all the same
 *     lb_planner_apply(&plan, &params);                               // layout, batches
 *     lb_planner_free(planner);
 */
#ifndef LB_RUN_PLANNER_H
#define LB_RUN_PLANNER_H

#include "memory/plan.h"
#include "run/engine.h"

/* The work: the largest that any video of the run asks for. */
typedef struct lb_plan_load {
    int n_frames;
    int tiles_per_frame;               /* most, with the thumbnail */
    int picture_width, picture_height; /* of the detector's largest picture; 0: the largest that its file allows */
    int text_tokens, question_tokens;  /* see lb_plan_request */
    size_t frame_bytes;                /* of the largest frame as decoded, for the host's memory */
} lb_plan_load;

typedef struct lb_planner lb_planner;

/* Of several devices, the order in which they are used, by what they have to give: their budgets or what is free, where
 * that is less. Each place has the first of those named whose share is within a tenth of the largest that is left; the
 * vision models, and whatever fits one device, are on the first. order->names stays empty where there is one device. To
 * be called before anything is taken on a device. early: by lb_devices_look where that can tell. Errors: of
 * lb_devices_find; --vram names too many. */
lb_status lb_planner_order_devices(const lb_engine_params *params, bool early, lb_device_order *order, lb_error *error);

/* params: borrowed until lb_planner_free. */
lb_status lb_planner_open(const lb_engine_params *params, const lb_plan_load *load, lb_planner **planner,
                          lb_error *error);
lb_status lb_planner_make(lb_planner *planner, lb_plan *plan, lb_error *error);
void lb_planner_free(lb_planner *planner);

/* Writes the plan's choice into params: the layout, batches, what rests. */
void lb_planner_apply(const lb_plan *plan, lb_engine_params *params);

#endif
