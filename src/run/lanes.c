#include "run/lanes.h"

#include "base/error.h"
#include "run/run_internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Engines that there can be, and what keeps them from being more. */
static int most_engines(const lb_run *r, const lb_child_state *state, char *why, size_t n_why) {
    const lb_device_order *order = &r->lane[0].order;
    const size_t ram = r->params->child.engine.ram_bytes, one = state->host_bytes + state->clip_bytes;
    if (!order->names[0] || state->n_devices < 1) {
        snprintf(why, n_why, "there is one device");
        return 1;
    }
    const int n_devices = lb_device_order_count(order);
    int n = n_devices / state->n_devices;
    snprintf(why, n_why, "each takes %d of the %d devices", state->n_devices, n_devices);
    if (ram > 0 && one > 0 && ram / one < (size_t)n) {
        n = ram / one > 1 ? (int)(ram / one) : 1;
        snprintf(why, n_why, "each takes %.1f MiB of --ram %.1f MiB", (double)one / (1 << 20), (double)ram / (1 << 20));
    }
    return n;
}

lb_status lb_lanes_count(const lb_run *r, const lb_child_state *plan, size_t n_videos, int *n, lb_error *error) {
    char why[128];
    const int asked = r->params->n_engines, most = most_engines(r, plan, why, sizeof why);
    if (asked > most)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "--engines %d: there can be %d, since %s; --engines auto takes as many as there can be",
                            asked, most, why);
    *n = asked > 0 ? asked : most;
    if ((size_t)*n > n_videos)
        *n = n_videos > 1 ? (int)n_videos : 1;
    return LB_STATUS_OK;
}

lb_status lb_lanes_deal(lb_run *r, const lb_child_state *state, lb_error *error) {
    lb_lane *first = &r->lane[0];
    int n;
    if (r->dealt)
        return LB_STATUS_OK;
    lb_status status = lb_lanes_count(r, state, r->queue.n, &n, error);
    r->dealt = status == LB_STATUS_OK;
    if (status != LB_STATUS_OK || n == 1)
        return status; /* the one may have all devices, should it need more of them later */
    r->all_devices = first->order;
    memcpy(r->numbers, state->numbers, sizeof r->numbers);
    const size_t ram = r->params->child.engine.ram_bytes;
    for (int i = 0; i < n; i++) {
        lb_lane *lane = &r->lane[i];
        if (i > 0) {
            lb_lane_init(r, i);
            lane->child_params.engine.n_retries = first->child_params.engine.n_retries;
            /* of its share, what its plan may take of it at most, until that is known */
            lane->host_bytes = ram > 0 ? ram / (size_t)n - state->clip_bytes : 0;
        }
        lb_device_order_take(&r->all_devices, i * state->n_devices, state->n_devices, &lane->order);
        lane->child_params.engine.ram_bytes = ram / (size_t)n;
    }
    r->n_lanes = n;
    return LB_STATUS_OK;
}

/* "CUDA" of "CUDA0" */
static size_t kind_length(const char *device) {
    size_t n = strlen(device);
    while (n && device[n - 1] >= '0' && device[n - 1] <= '9')
        n--;
    return n;
}

static lb_status compare_with_first(lb_lane *lane, lb_error *error) {
    lb_run *r = lane->run;
    const lb_child_state *own = lb_child_get_state(lane->child), *first = &r->result->engine;
    const size_t n = kind_length(own->device);
    if (n != kind_length(first->device) || strncmp(own->device, first->device, n) != 0)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s and %s count otherwise", first->device, own->device);
    lane->as_first = strcmp(own->device_description, first->device_description) == 0;
    if (!lane->as_first) {
        char name[128], message[512];
        lb_lane_name(lane, name, sizeof name);
        snprintf(message, sizeof message, "%s%s is not %s: answers can differ in their last digits", name,
                 own->device_description, first->device_description);
        lb_run_warn(r, message);
    }
    return LB_STATUS_OK;
}

static void tell_joined(lb_lane *lane) {
    lb_run *r = lane->run;
    pthread_mutex_lock(&r->mutex);
    r->result->n_engines++;
    if (r->observer.joined)
        r->observer.joined(lane->number + 1, lb_child_get_state(lane->child), r->observer.user);
    pthread_mutex_unlock(&r->mutex);
}

void lb_lanes_work(lb_lane *lane) {
    lb_run *r = lane->run;
    lb_group *group;
    for (lb_error error = {0}; lb_queue_next(lane, &group, &error); error = (lb_error){0}) {
        lb_group_answer(lane, group, &error);
        if (lb_group_is_open(group) && lb_run_goes_on(r))
            lb_queue_return(lane, group);
        else
            lb_queue_done(lane, group);
        lb_run_finish_sources(r);
    }
}

/* Until the run ends: a thread that ends takes its engine along, whose memory is to be told first. */
static void rest(lb_lane *lane) {
    lb_run *r = lane->run;
    pthread_mutex_lock(&r->mutex);
    lane->rests = true;
    pthread_cond_broadcast(&r->changed);
    while (!r->closing)
        pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
}

bool lb_lanes_wait_for_begin(lb_run *r) {
    pthread_mutex_lock(&r->mutex);
    while (!r->begun && !r->stop)
        pthread_cond_wait(&r->changed, &r->mutex);
    const bool goes_on = r->begun;
    pthread_mutex_unlock(&r->mutex);
    return goes_on;
}

static void *drive(void *user) {
    lb_lane *lane = user;
    lb_run *r = lane->run;
    lb_error error = {0};
    lb_status status = lb_lane_start(lane, &r->stop, &error);
    if (!lb_lanes_wait_for_begin(r))
        status = LB_STATUS_INTERRUPTED;
    if (status == LB_STATUS_OK)
        status = compare_with_first(lane, &error);
    if (status == LB_STATUS_OK) {
        tell_joined(lane);
        lb_lanes_work(lane);
    } else if (status != LB_STATUS_INTERRUPTED) {
        lb_child_stop(lane->child);
        lane->child = NULL;
        lb_lane_give_up(lane, &error);
    }
    rest(lane);
    lb_child_stop(lane->child);
    lane->child = NULL;
    return NULL;
}

void lb_lanes_start(lb_run *r) {
    sigset_t all, before; /* signals belong to the main thread */
    if (r->started)
        return;
    r->started = true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 1; i < r->n_lanes; i++) {
        lb_lane *lane = &r->lane[i];
        lane->has_thread = pthread_create(&lane->thread, NULL, drive, lane) == 0;
        if (!lane->has_thread)
            lb_lane_give_up(lane, &(lb_error){LB_STATUS_OUT_OF_MEMORY, "no thread can be started"});
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Weights of fewer bits the first engine may have to make, and the others find them made. Of a card that is offered as
 * several each would take what is free for its own. */
static bool can_start_early(const lb_engine_params *p) {
    return !getenv("GGML_CUDA_DEVICES") && p->weight_bits == 0 &&
           !(p->allow & (LB_ALLOW_WEIGHTS_Q8 | LB_ALLOW_WEIGHTS_Q4));
}

void lb_lanes_start_early(lb_run *r, const lb_child_state *state) {
    /* also called for the first lane's later engines: then both have been done */
    lb_error ignored; /* told when the first engine is there */
    if (state->fits && can_start_early(&r->params->child.engine) && lb_lanes_deal(r, state, &ignored) == LB_STATUS_OK)
        lb_lanes_start(r);
}

void lb_lanes_begin(lb_run *r) {
    lb_lanes_start(r);
    pthread_mutex_lock(&r->mutex);
    r->begun = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

void lb_lanes_rest(lb_run *r) {
    r->stop = true;
    pthread_mutex_lock(&r->mutex);
    for (int i = 1; i < r->n_lanes; i++)
        while (r->lane[i].has_thread && !r->lane[i].rests)
            pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
}

void lb_lanes_tell_memory(lb_run *r) {
    for (int i = 0; i < r->n_lanes; i++) {
        char *text = NULL, *json = NULL;
        lb_error ignored = {0};
        if (!r->lane[i].child || !r->work)
            continue;
        if (lb_child_memory(r->lane[i].child, r->params->cancel, &text, &json, &ignored) == LB_STATUS_OK && text &&
            r->observer.memory)
            r->observer.memory(text, json, r->observer.user);
        free(text);
        free(json);
    }
}

static void join(lb_run *r) {
    r->stop = true;
    pthread_mutex_lock(&r->mutex);
    r->closing = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    for (int i = 1; i < r->n_lanes; i++)
        if (r->lane[i].has_thread)
            pthread_join(r->lane[i].thread, NULL);
}

void lb_lanes_undo(lb_run *r) {
    if (r->n_lanes > 1) {
        join(r);
        memset(&r->lane[1], 0, (size_t)(r->n_lanes - 1) * sizeof r->lane[1]);
        r->stop = r->closing = false;
        r->n_lanes = 1;
        r->lane[0].order = r->all_devices;
        r->lane[0].child_params.engine.ram_bytes = r->params->child.engine.ram_bytes;
    }
    r->dealt = r->started = false;
}

void lb_lanes_end(lb_run *r) {
    r->stop = true; /* at once: the first engine may take its time to end */
    lb_child_stop(r->lane[0].child);
    r->lane[0].child = NULL;
    join(r);
}
