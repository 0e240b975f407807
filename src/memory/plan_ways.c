/* The ways to fit a plan into a budget, one step at a time; and what was taken, in words. */
#include "memory/plan_internal.h"

#include <stdarg.h>
#include <stdio.h>

bool lb_plan_halve(int *value, int least) {
    if (*value <= least)
        return false;
    *value = *value / 2 > least ? *value / 2 : least;
    return true;
}

bool lb_plan_advance(const lb_plan_request *r, lb_plan_way w, lb_plan_choice *c) {
    switch (w) {
    case LB_WAY_REST_COMPUTE:
        return !c->rest_compute && (c->rest_compute = true);
    case LB_WAY_REST_CONTEXT:
        return !c->rest_context && (c->rest_context = true);
    case LB_WAY_TILE_BATCH:
        return lb_plan_halve(&c->tile_batch, 1);
    case LB_WAY_FRAME_BATCH:
        return r->detector && lb_plan_halve(&c->frame_batch, 1);
    case LB_WAY_N_UBATCH:
        return lb_plan_halve(&c->n_ubatch, LB_UBATCH_LEAST);
    case LB_WAY_REST_WEIGHTS:
        return !c->rest_weights && (c->rest_weights = true);
    case LB_WAY_N_PARALLEL:
        return r->reuse && lb_plan_halve(&c->n_parallel, 1);
    case LB_WAY_WEIGHTS_Q8:
        return (r->allow & LB_ALLOW_WEIGHTS_Q8) && c->weight_bits == 0 && (c->weight_bits = 8);
    case LB_WAY_KV_Q8:
        return (r->allow & LB_ALLOW_KV_Q8) && !c->kv_q8 && (c->kv_q8 = true);
    case LB_WAY_WEIGHTS_Q4:
        return (r->allow & LB_ALLOW_WEIGHTS_Q4) && c->weight_bits != 4 && (c->weight_bits = 4);
    case LB_WAY_FEWER_CROPS:
        if (!(r->allow & LB_ALLOW_FEWER_CROPS) || c->crops_per_frame == 0)
            return false;
        c->crops_per_frame--;
        return true;
    case LB_WAY_FEWER_TILES:
        if (!(r->allow & LB_ALLOW_FEWER_TILES) || c->tiles_per_frame <= 1)
            return false;
        c->tiles_per_frame -= c->tiles_per_frame == 3 ? 2 : 1; /* of two tiles one is the thumbnail of the other */
        return true;
    case LB_WAY_COUNT:
        break;
    }
    return false;
}

void lb_plan_restore(lb_plan_way w, lb_plan_choice *c, const lb_plan_choice *to) {
    switch (w) {
    case LB_WAY_REST_COMPUTE:
        c->rest_compute = to->rest_compute;
        break;
    case LB_WAY_REST_CONTEXT:
        c->rest_context = to->rest_context;
        break;
    case LB_WAY_TILE_BATCH:
        c->tile_batch = to->tile_batch;
        break;
    case LB_WAY_FRAME_BATCH:
        c->frame_batch = to->frame_batch;
        break;
    case LB_WAY_N_UBATCH:
        c->n_ubatch = to->n_ubatch;
        break;
    case LB_WAY_REST_WEIGHTS:
        c->rest_weights = to->rest_weights;
        break;
    case LB_WAY_N_PARALLEL:
        c->n_parallel = to->n_parallel;
        break;
    case LB_WAY_WEIGHTS_Q8:
    case LB_WAY_WEIGHTS_Q4:
        c->weight_bits = to->weight_bits;
        break;
    case LB_WAY_KV_Q8:
        c->kv_q8 = to->kv_q8;
        break;
    case LB_WAY_FEWER_CROPS:
        c->crops_per_frame = to->crops_per_frame;
        break;
    case LB_WAY_FEWER_TILES:
        c->tiles_per_frame = to->tiles_per_frame;
        break;
    case LB_WAY_COUNT:
        break;
    }
}

static void note(lb_plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(lb_plan *plan, const char *format, ...) {
    if (plan->n_steps == LB_PLAN_STEPS_MAX)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(plan->step[plan->n_steps++], sizeof plan->step[0], format, args);
    va_end(args);
}

void lb_plan_describe(const lb_plan_request *r, const lb_plan_choice *s, lb_plan *plan) {
    const lb_plan_choice *c = &plan->choice;
    int n_speak = 0, speaks = 0;
    for (int d = 0; d < c->n_devices; d++)
        if (c->n_layers_on[d] > 0)
            n_speak++, speaks = d;
    if (n_speak > 1)
        note(plan, "the language model is spread over %d devices", n_speak);
    else if (c->n_devices > 1)
        note(plan, "the language model has a device of its own, number %d", speaks + 1);
    if (c->rest_compute && !s->rest_compute)
        note(plan, "%s: on the device only while they work",
             r->detector ? "detector's and vision encoder's activations and pool take turns"
                         : "vision encoder's activations and pool");
    if (c->rest_weights && !s->rest_weights)
        note(plan, "vision%s weights wait in pinned host memory between their uses",
             r->detector ? " and detector" : "");
    if (c->rest_context && !s->rest_context)
        note(plan, "KV cache and language activations are made for each video after its pictures are encoded");
    if (c->tile_batch != s->tile_batch)
        note(plan, "%d tiles in a batch in place of %d", c->tile_batch, s->tile_batch);
    if (c->frame_batch != s->frame_batch)
        note(plan, "%d frames in the detector's batch in place of %d", c->frame_batch, s->frame_batch);
    if (c->n_parallel != s->n_parallel)
        note(plan, "%d questions in flight in place of %d", c->n_parallel, s->n_parallel);
    if (c->n_ubatch != s->n_ubatch)
        note(plan, "%d prompt tokens in a step in place of %d", c->n_ubatch, s->n_ubatch);
    if (c->weight_bits)
        note(plan, "%d-bit weights (%s; may change answers)", c->weight_bits,
             c->weight_bits == s->weight_bits ? "asked for" : "allowed");
    if (c->kv_q8)
        note(plan, "q8_0 KV cache (%s; may change answers)", s->kv_q8 ? "asked for" : "allowed");
    if (c->crops_per_frame != s->crops_per_frame)
        note(plan, "at most %d crops a frame in place of %d (allowed; may change answers)", c->crops_per_frame,
             s->crops_per_frame);
    if (c->tiles_per_frame != s->tiles_per_frame)
        note(plan, "at most %d tiles a frame in place of %d (allowed; may change answers)", c->tiles_per_frame,
             s->tiles_per_frame);
    if (c->n_host_layers > 0)
        note(plan, "weights of %d of %d layers stay in host memory and cross for each step", c->n_host_layers,
             r->n_layer);
    plan->changes_answers = c->weight_bits != 0 || c->kv_q8 || c->crops_per_frame != s->crops_per_frame ||
                            c->tiles_per_frame != s->tiles_per_frame;
}
