#include "run/child_devices.h"

#include "nn/device.h"
#include "run/planner.h"

#include <stdio.h>

/* NVML has cards that CUDA does not show: ggml was built without it, a card is divided (MIG), or CUDA does not run. */
static void see(lb_child_devices *d, const char *names, int n, const char *first) {
    lb_device found[LB_DEVICES_MAX];
    int n_found;
    d->limited = lb_devices_limit(names, n);
    d->missing = d->limited && lb_devices_find(first, found, &n_found, NULL) == LB_STATUS_NOT_FOUND;
}

/* Without a plan all is on the first device. */
static void see_first(lb_child_devices *d, lb_engine_params *params) {
    lb_device found[LB_DEVICES_MAX];
    int n;
    if (!lb_devices_look(params->vlm.device, found, &n))
        return;
    snprintf(d->seen.names, sizeof d->seen.names, "%s", found[0].name);
    see(d, d->seen.names, 1, d->seen.names);
    if (d->limited)
        params->vlm.device = d->seen.names;
}

static void see_all(lb_child_devices *d) {
    d->n_all = d->n_seen = lb_device_order_count(&d->all);
    d->seen = d->all;
}

lb_status lb_child_devices_order(lb_child_devices *d, const lb_engine_params *params, lb_error *error) {
    return params->work && !d->all.names[0] ? lb_planner_order_devices(params, d->all.n_seen >= 0, &d->all, error)
                                            : LB_STATUS_OK;
}

void lb_child_devices_choose(lb_child_devices *d, lb_engine_params *params) {
    const bool choose = d->all.n_seen >= 0;
    if (!params->work) {
        if (choose)
            see_first(d, params);
        return;
    }
    see_all(d);
    if (choose && d->n_all > 0) {
        const int n = d->all.n_seen > 0 && d->all.n_seen <= d->n_all ? d->all.n_seen : 1;
        lb_device_order first;
        lb_device_order_take(&d->all, 0, n, &first);
        see(d, d->all.names, n, first.names);
        if (d->limited) {
            d->n_seen = n;
            d->seen = first;
        }
    } else if (choose && !lb_device_is_auto(params->vlm.device)) { /* one device, by its name */
        see(d, params->vlm.device, 1, params->vlm.device);
    }
    lb_device_order_apply(&d->seen, params);
    params->more_devices = d->n_seen < d->n_all && !d->last;
}

int lb_child_devices_want(const lb_child_devices *d, lb_status status, const lb_plan *plan) {
    if (d->missing)
        return -1;
    if (!d->limited || d->last || d->n_all < 2)
        return 0;
    if (status == LB_STATUS_DOES_NOT_FIT)
        return d->n_seen < d->n_all ? d->n_all : 0;
    return status == LB_STATUS_OK && plan && plan->choice.n_devices < d->n_seen ? plan->choice.n_devices : 0;
}
