/* Which devices an engine child sees, decided before its libraries have any. A device that CUDA sees has a context of
 * the process, half a GiB of somebody's memory, whether it is used or not; and how many devices an engine needs tells
 * only its plan, for which it must see them. So it sees the first alone, which will do where that holds everything as
 * it is. Else the parent starts another that sees all; and where that one's plan needs fewer, another that sees those.
 *
 *     lb_child_devices devices;
 *     lb_child_devices_order(&devices, &params, &error);      // the parent is told, in case that CUDA kills this
 * process lb_child_devices_choose(&devices, &params);             // params.vlm.device: those that are seen
 *     ... plan, unless devices.missing ...
 *     if ((n = lb_child_devices_want(&devices, status, plan))) // not 0: a child that sees n is wanted in place of
 * this,
 *                                                              // or, -1, one that sees whatever there is
 *
 * Private to child_main.c.
 */
#ifndef LB_RUN_CHILD_DEVICES_H
#define LB_RUN_CHILD_DEVICES_H

#include "memory/plan.h"
#include "run/engine.h"

typedef struct lb_child_devices {
    lb_device_order all;  /* in: n_seen, and the rest where the order is known already */
    lb_device_order seen; /* what params points to afterwards */
    bool last;            /* in: this child is to do with what it sees */
    bool limited;         /* it sees these, and no others */
    bool missing;         /* and CUDA does not show them */
    int n_all, n_seen;
} lb_child_devices;

/* all.names, where they are not known yet and there is a plan to be made. Errors: of lb_planner_order_devices. */
lb_status lb_child_devices_order(lb_child_devices *devices, const lb_engine_params *params, lb_error *error);

void lb_child_devices_choose(lb_child_devices *devices, lb_engine_params *params);

/* status: of lb_engine_plan; plan: NULL: none was made. */
int lb_child_devices_want(const lb_child_devices *devices, lb_status status, const lb_plan *plan);

#endif
