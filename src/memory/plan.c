/* The search for a choice that fits. Pure arithmetic: sizes come from the sizer. */
#include "memory/plan.h"

#include "base/error.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CELLS_STEP = 256 }; /* libllama pads the KV cache to this */

int lb_plan_cells(const lb_plan_request *r, const lb_plan_choice *c) {
    const int64_t pictures = (int64_t)r->n_frames * (c->tiles_per_frame + c->crops_per_frame) * r->tokens_per_tile;
    const int64_t own = (int64_t)r->question_tokens + r->new_tokens;
    int64_t n = r->text_tokens + pictures + own * (r->reuse ? c->n_parallel : 1);
    n = (n + CELLS_STEP - 1) / CELLS_STEP * CELLS_STEP;
    return n > INT32_MAX - CELLS_STEP ? INT32_MAX - CELLS_STEP : (int)n;
}

typedef struct search {
    const lb_plan_request *request;
    const lb_plan_sizer *sizer;
    lb_plan *plan;
    lb_plan_choice nearest; /* of those at the end of all ways the one with the lowest peak */
    size_t nearest_bytes;   /* its peak; 0: there is none yet */
    size_t alone_bytes;     /* peak at the end of all ways with one device */
    lb_status status;
    lb_error *error;
} search;

static void note(lb_plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(lb_plan *plan, const char *format, ...) {
    if (plan->n_steps == LB_PLAN_STEPS_MAX)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(plan->step[plan->n_steps++], sizeof plan->step[0], format, args);
    va_end(args);
}

/* Who is where in which phase. */
static void fill(lb_plan *plan, const lb_plan_sizes *s) {
    const lb_plan_choice *c = &plan->choice;
    const lb_plan_request *r = &plan->request;
    const bool vision_rests = c->rest_compute || c->rest_weights;
    memset(plan->bytes, 0, sizeof plan->bytes);
    for (int d = 0; d < c->n_devices; d++) {
        const bool vision = d == c->vision_device, detector = vision && r->detector;
        for (int p = 0; p < LB_PHASE_COUNT; p++) {
            const bool loads = p == LB_PHASE_LOAD, speaks = p == LB_PHASE_PROMPT || p == LB_PHASE_GENERATE;
            const bool encodes = p == LB_PHASE_ENCODE, detects = p == LB_PHASE_DETECT;
            size_t *b = plan->bytes[d][p];
            size_t pools = s->churn[d];
            b[LB_COMPONENT_LANGUAGE_WEIGHTS] = s->language_weights[d];
            /* the context is made when all weights are there: it belongs to the next phase then */
            if (speaks || (!c->rest_context && !loads)) {
                b[LB_COMPONENT_LANGUAGE_KV] = s->kv[d];
                b[LB_COMPONENT_LANGUAGE_COMPUTE] = s->language_compute[d];
                pools += s->language_pool[d];
            }
            /* at load the encoder is warmed up */
            if (vision && (!c->rest_weights || encodes || loads))
                b[LB_COMPONENT_VISION_WEIGHTS] = s->vision_weights;
            if (vision && (!vision_rests || encodes || loads))
                b[LB_COMPONENT_VISION_COMPUTE] = s->vision_compute;
            if (vision && (!c->rest_compute || encodes || loads))
                pools += s->vision_pool;
            if (detector) {
                b[LB_COMPONENT_DETECTOR_WEIGHTS] = s->detector_text + (loads ? s->text_encoder : 0);
                if (detects || !c->rest_weights)
                    b[LB_COMPONENT_DETECTOR_WEIGHTS] += s->detector_weights;
                if (detects || (!vision_rests && !loads)) /* the pictures' sizes come with the first video */
                    b[LB_COMPONENT_DETECTOR_COMPUTE] = s->detector_compute;
                if (loads && s->text_encoder_compute > b[LB_COMPONENT_DETECTOR_COMPUTE])
                    b[LB_COMPONENT_DETECTOR_COMPUTE] = s->text_encoder_compute;
                if (detects || !c->rest_compute)
                    pools += s->detector_pool;
            }
            b[LB_COMPONENT_LIBRARIES] = r->device[d].context_bytes + pools;
        }
    }
    plan->fits = true;
    for (int d = 0; d < c->n_devices; d++) {
        plan->peak_bytes[d] = 0;
        for (int p = 0; p < LB_PHASE_COUNT; p++) {
            size_t sum = 0;
            for (int i = 0; i < LB_COMPONENT_COUNT; i++)
                sum += plan->bytes[d][p][i];
            if (sum > plan->peak_bytes[d] && (p != LB_PHASE_DETECT || r->detector)) {
                plan->peak_bytes[d] = sum;
                plan->peak_phase[d] = (lb_phase)p;
            }
        }
        plan->fits &= plan->peak_bytes[d] <= r->device[d].budget_bytes;
    }
    plan->host_bytes[LB_COMPONENT_HOST_WEIGHTS] =
        s->host_layer_weights + (c->rest_weights ? s->vision_weights + (r->detector ? s->detector_weights : 0) : 0);
}

/* Puts a choice into the plan; true when it fits (false too when the sizer failed: search.status). */
static bool try(search *x, const lb_plan_choice *choice) {
    lb_plan *plan = x->plan;
    plan->choice = *choice;
    plan->choice.n_cells = lb_plan_cells(x->request, choice);
    lb_plan_sizes sizes = {0};
    if (x->status == LB_STATUS_OK)
        x->status = x->sizer->sizes(x->sizer->user, &plan->choice, &sizes, x->error);
    if (x->status != LB_STATUS_OK)
        return false;
    fill(plan, &sizes);
    return plan->fits;
}

/* The ways to fit, in the order in which they are taken: first those that leave every number as it is, the cheapest
 * first (docs/memory.md has what they cost), then those that round otherwise, then what the user allows, then the
 * layers on the host. */
typedef enum way {
    WAY_REST_COMPUTE,
    WAY_REST_WEIGHTS,
    WAY_REST_CONTEXT,
    WAY_TILE_BATCH,
    WAY_FRAME_BATCH,
    WAY_N_PARALLEL,
    WAY_N_UBATCH,
    WAY_WEIGHTS_Q8,
    WAY_KV_Q8,
    WAY_WEIGHTS_Q4,
    WAY_FEWER_CROPS,
    WAY_FEWER_TILES,
    WAY_COUNT
} way;

static bool halve(int *value, int least) {
    if (*value <= least)
        return false;
    *value = *value / 2 > least ? *value / 2 : least;
    return true;
}

enum {
    UBATCH_LEAST = 64,
    UBATCH_MOST = 2048 /* larger ones gain nothing, and libllama is slower with them */
};

/* One step of a way further; false when it is at its end or not allowed. */
static bool advance(const lb_plan_request *r, way w, lb_plan_choice *c) {
    switch (w) {
    case WAY_REST_COMPUTE:
        return !c->rest_compute && (c->rest_compute = true);
    case WAY_REST_CONTEXT:
        return !c->rest_context && (c->rest_context = true);
    case WAY_TILE_BATCH:
        return halve(&c->tile_batch, 1);
    case WAY_FRAME_BATCH:
        return r->detector && halve(&c->frame_batch, 1);
    case WAY_N_UBATCH:
        return halve(&c->n_ubatch, UBATCH_LEAST);
    case WAY_REST_WEIGHTS:
        return !c->rest_weights && (c->rest_weights = true);
    case WAY_N_PARALLEL:
        return r->reuse && halve(&c->n_parallel, 1);
    case WAY_WEIGHTS_Q8:
        return (r->allow & LB_ALLOW_WEIGHTS_Q8) && c->weight_bits == 0 && (c->weight_bits = 8);
    case WAY_KV_Q8:
        return (r->allow & LB_ALLOW_KV_Q8) && !c->kv_q8 && (c->kv_q8 = true);
    case WAY_WEIGHTS_Q4:
        return (r->allow & LB_ALLOW_WEIGHTS_Q4) && c->weight_bits != 4 && (c->weight_bits = 4);
    case WAY_FEWER_CROPS:
        if (!(r->allow & LB_ALLOW_FEWER_CROPS) || c->crops_per_frame == 0)
            return false;
        c->crops_per_frame--;
        return true;
    case WAY_FEWER_TILES:
        if (!(r->allow & LB_ALLOW_FEWER_TILES) || c->tiles_per_frame <= 1)
            return false;
        c->tiles_per_frame -= c->tiles_per_frame == 3 ? 2 : 1; /* of two tiles one is the thumbnail of the other */
        return true;
    case WAY_COUNT:
        break;
    }
    return false;
}

/* Sets back what a way changed to what it is in `to`. */
static void restore(way w, lb_plan_choice *c, const lb_plan_choice *to) {
    switch (w) {
    case WAY_REST_COMPUTE:
        c->rest_compute = to->rest_compute;
        break;
    case WAY_REST_CONTEXT:
        c->rest_context = to->rest_context;
        break;
    case WAY_TILE_BATCH:
        c->tile_batch = to->tile_batch;
        break;
    case WAY_FRAME_BATCH:
        c->frame_batch = to->frame_batch;
        break;
    case WAY_N_UBATCH:
        c->n_ubatch = to->n_ubatch;
        break;
    case WAY_REST_WEIGHTS:
        c->rest_weights = to->rest_weights;
        break;
    case WAY_N_PARALLEL:
        c->n_parallel = to->n_parallel;
        break;
    case WAY_WEIGHTS_Q8:
    case WAY_WEIGHTS_Q4:
        c->weight_bits = to->weight_bits;
        break;
    case WAY_KV_Q8:
        c->kv_q8 = to->kv_q8;
        break;
    case WAY_FEWER_CROPS:
        c->crops_per_frame = to->crops_per_frame;
        break;
    case WAY_FEWER_TILES:
        c->tiles_per_frame = to->tiles_per_frame;
        break;
    case WAY_COUNT:
        break;
    }
}

/* Takes back, dearest first, what turned out not to be needed. */
static void relax(search *x, lb_plan_choice *c, const lb_plan_choice *start) {
    static const way dearest[] = {WAY_FEWER_TILES, WAY_FEWER_CROPS,  WAY_WEIGHTS_Q4,   WAY_KV_Q8,
                                  WAY_WEIGHTS_Q8,  WAY_N_UBATCH,     WAY_N_PARALLEL,   WAY_FRAME_BATCH,
                                  WAY_TILE_BATCH,  WAY_REST_CONTEXT, WAY_REST_WEIGHTS, WAY_REST_COMPUTE};
    for (size_t i = 0; i < sizeof dearest / sizeof *dearest && x->status == LB_STATUS_OK; i++) {
        lb_plan_choice less = *c;
        if (dearest[i] == WAY_WEIGHTS_Q4 && c->weight_bits == 4 && (x->request->allow & LB_ALLOW_WEIGHTS_Q8)) {
            less.weight_bits = 8;
            if (try(x, &less)) {
                *c = less;
                continue;
            }
            less = *c;
        }
        restore(dearest[i], &less, start);
        if (memcmp(&less, c, sizeof less) != 0 && try(x, &less))
            *c = less;
    }
}

/* What a device can hold of the language model beside the rest, in layers; s: sizes with the output on a device of its
 * own, which is the second. */
static double room_for_layers(const lb_plan_request *r, const lb_plan_choice *c, const lb_plan_sizes *s, int d,
                              bool has_output) {
    const double layer = (double)s->language_weights[0] / r->n_layer, kv = (double)s->kv[0] / r->n_layer;
    const double vision = (double)(s->vision_weights + s->vision_compute + s->vision_pool);
    const double detector = (double)(s->detector_weights + s->detector_compute + s->detector_pool);
    double left = (double)r->device[d].budget_bytes - (double)r->device[d].context_bytes;
    left -= has_output ? (double)s->language_weights[1] : 0;
    if (d == c->vision_device)
        left -= (double)s->detector_text;
    const double speaks = left - (double)s->language_compute[0] - (double)s->language_pool[0];
    if (d != c->vision_device)
        return speaks / (layer + kv);
    if (!c->rest_compute || !c->rest_context || !c->rest_weights)
        return (speaks - vision - detector) / (layer + kv);
    /* they take turns */
    const double sees = (left - (vision > detector ? vision : detector)) / layer;
    return sees < speaks / (layer + kv) ? sees : speaks / (layer + kv);
}

/* Layers of the language model over n devices, as even as their room allows; the last one has the output. Where one has
 * room for none it gets none if `some` will do; else, or where it is all of them, false. */
static bool spread(search *x, lb_plan_choice *c, int n, bool some) {
    const lb_plan_request *r = x->request;
    lb_plan_choice apart = *c;
    apart.n_devices = 2;
    apart.n_layers_on[0] = r->n_layer;
    apart.n_layers_on[1] = 1;
    apart.n_cells = lb_plan_cells(r, c);
    lb_plan_sizes sizes = {0};
    x->status = x->sizer->sizes(x->sizer->user, &apart, &sizes, x->error);
    if (x->status != LB_STATUS_OK)
        return false;
    while (some && n > 1 && room_for_layers(r, c, &sizes, n - 1, true) <= 0)
        n--;
    double room[LB_DEVICES_MAX], sum = 0;
    for (int d = 0; d < n; d++) {
        room[d] = room_for_layers(r, c, &sizes, d, d == n - 1);
        if (room[d] <= 0 && !some)
            return false;
        room[d] = room[d] > 0 ? room[d] : 0;
        sum += room[d];
    }
    if (sum <= 0)
        return false;
    int given = 0;
    double before = 0;
    for (int d = 0; d < n; d++) {
        before += room[d];
        const int up_to = d == n - 1 ? r->n_layer + 1 : (int)(before / sum * r->n_layer + 0.5);
        c->n_layers_on[d] = up_to - given;
        given = up_to;
    }
    for (int d = n; d < LB_DEVICES_MAX; d++)
        c->n_layers_on[d] = 0;
    c->n_devices = n;
    return true;
}

static void describe(const lb_plan_request *r, const lb_plan_choice *s, lb_plan *plan) {
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
    if (c->rest_context && !s->rest_context)
        note(plan, "KV cache and language activations are made for each video after its pictures are encoded");
    if (c->tile_batch != s->tile_batch)
        note(plan, "%d tiles in a batch in place of %d", c->tile_batch, s->tile_batch);
    if (c->frame_batch != s->frame_batch)
        note(plan, "%d frames in the detector's batch in place of %d", c->frame_batch, s->frame_batch);
    if (c->n_ubatch != s->n_ubatch)
        note(plan, "%d prompt tokens in a step in place of %d", c->n_ubatch, s->n_ubatch);
    if (c->rest_weights && !s->rest_weights)
        note(plan, "vision%s weights wait in pinned host memory between their uses",
             r->detector ? " and detector" : "");
    if (c->n_parallel != s->n_parallel)
        note(plan, "%d questions in flight in place of %d", c->n_parallel, s->n_parallel);
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

static size_t highest_peak(const lb_plan *plan) {
    size_t most = 0;
    for (int d = 0; d < plan->choice.n_devices; d++)
        most = plan->peak_bytes[d] > most ? plan->peak_bytes[d] : most;
    return most;
}

/* The fewest layers on the host with which *c fits; false: not even with all of them. Peaks fall with each. */
static bool fewest_on_host(search *x, lb_plan_choice *c) {
    int low = 0, high = x->request->n_layer;
    c->n_host_layers = high;
    if (x->status != LB_STATUS_OK || !try(x, c))
        return false;
    while (high - low > 1 && x->status == LB_STATUS_OK) {
        c->n_host_layers = (low + high) / 2;
        *(try(x, c) ? &high : &low) = c->n_host_layers;
    }
    c->n_host_layers = high;
    return x->status == LB_STATUS_OK;
}

/* Layers on the host. Their weights cross once a step, so larger steps are worth the layers that make room for them: of
 * the sizes from the one at the start up, the one with the fewest crossings. With as many questions in flight as at the
 * start, since each that is asked by itself takes steps of its own. Where that does not fit: the largest step that does
 * with as few questions as *c has. */
static bool rest_on_host(search *x, lb_plan_choice *c, const lb_plan_choice *start) {
    const lb_plan_request *r = x->request;
    const int64_t n_tokens =
        (int64_t)r->n_frames * (c->tiles_per_frame + c->crops_per_frame) * r->tokens_per_tile + r->text_tokens;
    const int most = r->fixed_ubatch || start->n_ubatch > UBATCH_MOST ? start->n_ubatch : UBATCH_MOST;
    int64_t fewest = 0;
    lb_plan_choice best = *c;
    for (int size = start->n_ubatch; size <= most; size *= 2) {
        lb_plan_choice tried = *c;
        tried.n_ubatch = size;
        tried.n_parallel = start->n_parallel;
        if (!fewest_on_host(x, &tried))
            break;
        const int64_t crossings = (int64_t)tried.n_host_layers * ((n_tokens + size - 1) / size);
        if (fewest == 0 || crossings < fewest) {
            fewest = crossings;
            best = tried;
        }
    }
    int size = start->n_ubatch;
    while (fewest == 0 && x->status == LB_STATUS_OK) {
        best.n_ubatch = size;
        if (fewest_on_host(x, &best))
            fewest = 1;
        else if (!halve(&size, UBATCH_LEAST))
            break;
    }
    *c = best;
    return fewest > 0;
}

/* From the start along all ways until it fits; *c is then the choice. */
static bool fit(search *x, lb_plan_choice *c) {
    const lb_plan_request *r = x->request;
    lb_plan_choice start = *c;
    bool fits = try(x, c);
    for (int w = 0; w < WAY_COUNT && !fits && x->status == LB_STATUS_OK; w++)
        while (!fits && x->status == LB_STATUS_OK && advance(r, (way)w, c))
            fits = try(x, c);
    if (!fits && c->n_devices == 1 && !r->device[0].is_cpu && x->status == LB_STATUS_OK) {
        fits = rest_on_host(x, c, &start);
        start.n_ubatch = c->n_ubatch;
    }
    if (fits && x->status == LB_STATUS_OK)
        relax(x, c, &start);
    if (!fits && c->n_devices == 1)
        x->alone_bytes = highest_peak(x->plan);
    if (!fits && (x->nearest_bytes == 0 || highest_peak(x->plan) < x->nearest_bytes)) {
        x->nearest = *c;
        x->nearest_bytes = highest_peak(x->plan);
    }
    return fits && x->status == LB_STATUS_OK;
}

/* All that can be tried, from the start on; *choice is what fits, if anything does. */
static bool find(search *x, const lb_plan_choice *start, lb_plan_choice *choice) {
    const lb_plan_request *r = x->request;
    bool fits = false;
    if (r->n_devices > 1) {
        /* the fewest devices that hold it as it is; else all of them with the ways to fit, spread by what is left
         * beside the parts as they are or, where that is nothing, as small as they can be; else one */
        for (int n = 1; n <= r->n_devices && !fits && x->status == LB_STATUS_OK; n++) {
            *choice = *start;
            fits = (n == 1 || spread(x, choice, n, false)) && try(x, choice);
        }
        lb_plan_choice tight = *start;
        for (int w = 0; w <= WAY_N_UBATCH; w++)
            while (advance(r, (way)w, &tight))
                ;
        for (int k = 0; k < 2 && !fits && x->status == LB_STATUS_OK; k++) {
            lb_plan_choice spread_as = k == 0 ? *start : tight;
            if (!spread(x, &spread_as, r->n_devices, k == 1))
                continue;
            *choice = *start;
            choice->n_devices = spread_as.n_devices;
            memcpy(choice->n_layers_on, spread_as.n_layers_on, sizeof choice->n_layers_on);
            fits = fit(x, choice);
        }
    }
    if (!fits && x->status == LB_STATUS_OK) {
        *choice = *start;
        fits = fit(x, choice);
    }
    return fits;
}

/* The layers of the nearest choice were spread by budgets that were too small. With its peak for each device they are
 * spread otherwise, and may not fit: then what one device would do with, where no spread matters. */
static size_t smallest_budget(const search *x, const lb_plan_choice *start) {
    if (x->plan->choice.n_devices == 1)
        return x->nearest_bytes;
    lb_plan plan = {.request = *x->request};
    for (int d = 0; d < plan.request.n_devices; d++)
        plan.request.device[d].budget_bytes = x->nearest_bytes;
    search again = {.request = &plan.request, .sizer = x->sizer, .plan = &plan, .error = x->error};
    lb_plan_choice choice;
    return find(&again, start, &choice) ? x->nearest_bytes : x->alone_bytes;
}

lb_status lb_plan_make(const lb_plan_request *request, const lb_plan_sizer *sizer, lb_plan *plan, lb_error *error) {
    memset(plan, 0, sizeof *plan);
    plan->request = *request;
    search x = {.request = request, .sizer = sizer, .plan = plan, .error = error};
    lb_plan_choice start;
    memset(&start, 0, sizeof start); /* also what lies between the fields: choices are compared as bytes */
    start.tile_batch = request->tile_batch;
    start.frame_batch = request->detector ? request->frame_batch : 0;
    start.n_ubatch = request->n_ubatch;
    start.n_parallel = request->reuse ? request->n_parallel : 1;
    start.weight_bits = request->weight_bits;
    start.kv_q8 = request->kv_q8;
    start.tiles_per_frame = request->tiles_per_frame;
    start.crops_per_frame = request->crops_per_frame;
    start.n_devices = 1;
    start.n_layers_on[0] = request->n_layer + 1;
    lb_plan_choice choice;
    const bool fits = find(&x, &start, &choice);
    if (x.status != LB_STATUS_OK)
        return x.status;
    try(&x, fits ? &choice : &x.nearest); /* the last one tried may be another */
    describe(request, &start, plan);
    plan->n_tiles = request->n_frames * (plan->choice.tiles_per_frame + plan->choice.crops_per_frame);
    const int64_t n_tokens =
        (int64_t)plan->n_tiles * request->tokens_per_tile + request->text_tokens + request->question_tokens;
    plan->n_tokens = n_tokens > INT32_MAX ? INT32_MAX : (int)n_tokens;
    if (fits || x.status != LB_STATUS_OK)
        return x.status;
    plan->smallest_bytes = smallest_budget(&x, &start);
    int d = 0;
    while (d < plan->choice.n_devices - 1 && plan->peak_bytes[d] <= request->device[d].budget_bytes)
        d++;
    const lb_plan_device *device = &request->device[d];
    return lb_error_set(error, LB_STATUS_DOES_NOT_FIT,
                        "does not fit: %.0f MiB on %s, with every saving that %s; the smallest --vram that would do is "
                        "%.0fMiB",
                        (double)device->budget_bytes / (1 << 20), device->name,
                        request->allow ? "is allowed"
                                       : "leaves the answers as they are (--allow kv-q8,weights-q8,"
                                         "weights-q4,fewer-tiles,fewer-crops would allow more)",
                        ceil((double)plan->smallest_bytes / (1 << 20)));
}
