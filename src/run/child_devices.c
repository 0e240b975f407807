#include "run/child_devices.h"

#include "nn/device.h"
#include "run/planner.h"

static bool see(lb_child_devices *d, const char *names, int n) {
    d->limited = lb_devices_limit(names, n);
    return d->limited;
}

/* Without a plan all is on the first device. */
static lb_status see_first(lb_child_devices *d, const lb_engine_params *params) {
    lb_device found[LB_DEVICES_MAX];
    int n;
    if (lb_devices_look(params->vlm.device, found, &n))
        see(d, found[0].name, 1);
    return LB_STATUS_OK;
}

/* The driver's library has cards, but ggml was built without CUDA, or CUDA does not run here. */
static bool is_missing(const lb_device_order *seen) {
    lb_device found[LB_DEVICES_MAX];
    int n;
    return lb_devices_find(seen->names, found, &n, NULL) == LB_STATUS_NOT_FOUND;
}

lb_status lb_child_devices_choose(lb_child_devices *d, lb_engine_params *params, lb_error *error) {
    const char *given = params->vlm.device;
    if (!params->work)
        return see_first(d, params);
    lb_status status = LB_STATUS_OK;
    if (!d->all.names[0])
        status = lb_planner_order_devices(params, &d->all, error);
    if (status != LB_STATUS_OK)
        return status;
    d->n_all = lb_device_order_count(&d->all);
    if (d->n_all == 0) { /* there is one device: its name, or "auto" */
        see(d, lb_device_is_auto(given) ? "" : given, 1);
        return LB_STATUS_OK;
    }
    d->n_seen = d->all.n_seen > 0 && d->all.n_seen <= d->n_all ? d->all.n_seen : 1;
    if (see(d, d->all.names, d->n_seen)) {
        lb_device_order_take(&d->all, 0, d->n_seen, &d->seen);
        if (lb_device_is_auto(given) && is_missing(&d->seen)) {
            d->limited = false;
            d->seen = (lb_device_order){0};
            status = lb_planner_order_devices(params, &d->all, error);
        }
    }
    if (!d->limited) {
        d->n_all = d->n_seen = lb_device_order_count(&d->all);
        d->seen = d->all;
    }
    lb_device_order_apply(&d->seen, params);
    params->more_devices = d->n_seen < d->n_all && !d->last;
    return status;
}

int lb_child_devices_want(const lb_child_devices *d, lb_status status, const lb_plan *plan) {
    if (!d->limited || d->last || d->n_all < 2)
        return 0;
    if (status == LB_STATUS_DOES_NOT_FIT)
        return d->n_seen < d->n_all ? d->n_all : 0;
    return status == LB_STATUS_OK && plan->choice.n_devices < d->n_seen ? plan->choice.n_devices : 0;
}
