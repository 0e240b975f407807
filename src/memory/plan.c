/* The search for a choice that fits. Pure arithmetic: sizes come from the sizer. */
#include "memory/plan_internal.h"

#include "base/error.h"

#include <math.h>
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
    lb_plan_fill(plan, &sizes);
    return plan->fits;
}

/* Takes back, dearest first, what turned out not to be needed. */
static void relax(search *x, lb_plan_choice *c, const lb_plan_choice *start) {
    static const lb_plan_way dearest[] = {LB_WAY_FEWER_TILES,  LB_WAY_FEWER_CROPS,  LB_WAY_WEIGHTS_Q4,
                                          LB_WAY_KV_Q8,        LB_WAY_WEIGHTS_Q8,   LB_WAY_N_UBATCH,
                                          LB_WAY_N_PARALLEL,   LB_WAY_FRAME_BATCH,  LB_WAY_TILE_BATCH,
                                          LB_WAY_REST_CONTEXT, LB_WAY_REST_WEIGHTS, LB_WAY_REST_COMPUTE};
    for (size_t i = 0; i < sizeof dearest / sizeof *dearest && x->status == LB_STATUS_OK; i++) {
        lb_plan_choice less = *c;
        if (dearest[i] == LB_WAY_WEIGHTS_Q4 && c->weight_bits == 4 && (x->request->allow & LB_ALLOW_WEIGHTS_Q8)) {
            less.weight_bits = 8;
            if (try(x, &less)) {
                *c = less;
                continue;
            }
            less = *c;
        }
        lb_plan_restore(dearest[i], &less, start);
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

/* Sizes for room_for_layers. Errors: search.status. */
static bool sizes_apart(search *x, const lb_plan_choice *c, lb_plan_sizes *sizes) {
    lb_plan_choice apart = *c;
    apart.n_devices = 2;
    apart.n_host_layers = 0;
    apart.n_layers_on[0] = x->request->n_layer;
    apart.n_layers_on[1] = 1;
    apart.n_cells = lb_plan_cells(x->request, c);
    *sizes = (lb_plan_sizes){0};
    x->status = x->sizer->sizes(x->sizer->user, &apart, sizes, x->error);
    return x->status == LB_STATUS_OK;
}

/* Layers of the language model over n devices, as even as their room allows; the last one has the output. Where one has
 * room for none it gets none if `some` will do; else, or where it is all of them, false. */
static bool spread(search *x, lb_plan_choice *c, int n, bool some) {
    const lb_plan_request *r = x->request;
    lb_plan_sizes sizes;
    if (!sizes_apart(x, c, &sizes))
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

static size_t highest_peak(const lb_plan *plan) {
    size_t most = 0;
    for (int d = 0; d < plan->choice.n_devices; d++)
        most = plan->peak_bytes[d] > most ? plan->peak_bytes[d] : most;
    return most;
}

/* Host layers are worked on by the first device, which has the vision models, too: the others take what they have room
 * for, and it has the rest of the layers, from the first on. False: none of the others has room for any. */
static bool fill_others(search *x, lb_plan_choice *c) {
    const lb_plan_request *r = x->request;
    lb_plan_sizes sizes;
    if (!sizes_apart(x, c, &sizes))
        return false;
    int n = r->n_devices, left = r->n_layer;
    while (n > 1 && room_for_layers(r, c, &sizes, n - 1, true) < 1)
        n--;
    if (n == 1)
        return false;
    memset(c->n_layers_on, 0, sizeof c->n_layers_on);
    for (int d = n - 1; d > 0; d--) {
        const double room = room_for_layers(r, c, &sizes, d, d == n - 1);
        const int own = room < 0 ? 0 : room < left ? (int)room : left;
        c->n_layers_on[d] = own + (d == n - 1);
        left -= own;
    }
    c->n_layers_on[0] = left;
    c->n_devices = n;
    return true;
}

/* All of the first device's layers on the host. What others turn out to have no room for becomes its own. */
static bool rest_all(search *x, lb_plan_choice *c) {
    const lb_plan_request *r = x->request;
    while (x->status == LB_STATUS_OK) {
        c->n_host_layers = c->n_layers_on[0] < r->n_layer ? c->n_layers_on[0] : r->n_layer;
        if (try(x, c))
            return true;
        int d = 1;
        while (d < c->n_devices &&
               (x->plan->peak_bytes[d] <= r->device[d].budget_bytes || c->n_layers_on[d] <= (d == c->n_devices - 1)))
            d++;
        if (d >= c->n_devices)
            return false;
        c->n_layers_on[d]--;
        c->n_layers_on[0]++;
    }
    return false;
}

/* The fewest layers on the host with which *c fits; false: not even with all of them. Peaks fall with each. */
static bool fewest_on_host(search *x, lb_plan_choice *c) {
    if (x->status != LB_STATUS_OK || (c->n_devices > 1 && !fill_others(x, c)) || !rest_all(x, c))
        return false;
    int low = c->n_devices > 1 ? -1 : 0, high = c->n_host_layers; /* of one device it is known that 0 do not fit */
    while (high - low > 1 && x->status == LB_STATUS_OK) {
        c->n_host_layers = (low + high) / 2;
        *(try(x, c) ? &high : &low) = c->n_host_layers;
    }
    c->n_host_layers = high;
    return x->status == LB_STATUS_OK;
}

/* Of host layers, for a video: once a step. */
static int64_t crossings_of(const lb_plan_request *r, const lb_plan_choice *c) {
    const int64_t n_tokens =
        (int64_t)r->n_frames * (c->tiles_per_frame + c->crops_per_frame) * r->tokens_per_tile + r->text_tokens;
    return c->n_host_layers * ((n_tokens + c->n_ubatch - 1) / c->n_ubatch + LB_OTHER_STEPS);
}

/* Layers on the host. Their weights cross once a step, so larger steps are worth the layers that make room for them: of
 * the sizes from the one at the start up, the one with the fewest crossings. With as many questions in flight as at the
 * start, since each that is asked by itself takes steps of its own. Where that does not fit: the largest step that does
 * with as few questions as *c has. */
static bool rest_on_host(search *x, lb_plan_choice *c, const lb_plan_choice *start, bool small_steps) {
    const lb_plan_request *r = x->request;
    const int most = r->fixed_ubatch || start->n_ubatch > LB_UBATCH_MOST ? start->n_ubatch : LB_UBATCH_MOST;
    bool fits = false;
    lb_plan_choice best = *c;
    for (int size = start->n_ubatch; size <= most; size *= 2) {
        lb_plan_choice tried = *c;
        tried.n_ubatch = size;
        tried.n_parallel = start->n_parallel;
        if (!fewest_on_host(x, &tried))
            break;
        if (!fits || crossings_of(r, &tried) < crossings_of(r, &best))
            best = tried;
        fits = true;
    }
    int size = start->n_ubatch;
    while (small_steps && !fits && x->status == LB_STATUS_OK) {
        best.n_ubatch = size;
        if (fewest_on_host(x, &best))
            fits = true;
        else if (!lb_plan_halve(&size, LB_UBATCH_LEAST))
            break;
    }
    *c = best;
    return fits;
}

/* From the start along all ways until it fits; *c is then the choice. */
static bool fit(search *x, lb_plan_choice *c) {
    const lb_plan_request *r = x->request;
    lb_plan_choice start = *c;
    bool fits = try(x, c);
    for (int w = 0; w < LB_WAY_COUNT && !fits && x->status == LB_STATUS_OK; w++)
        while (!fits && x->status == LB_STATUS_OK && lb_plan_advance(r, (lb_plan_way)w, c))
            fits = try(x, c);
    if (!fits && c->n_devices == 1 && !r->device[0].is_cpu && x->status == LB_STATUS_OK) {
        fits = rest_on_host(x, c, &start, true);
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

/* Layers on the host where several devices do not hold all: with every other way taken, but for those that turn out not
 * to be needed. */
static bool fit_on_host(search *x, const lb_plan_choice *start, bool small_steps, lb_plan_choice *c) {
    *c = *start;
    for (int w = 0; w < LB_WAY_COUNT; w++)
        while (lb_plan_advance(x->request, (lb_plan_way)w, c))
            ;
    c->n_devices = x->request->n_devices;
    if (x->status != LB_STATUS_OK || !rest_on_host(x, c, start, small_steps))
        return false;
    lb_plan_choice relaxed = *start;
    relaxed.n_ubatch = c->n_ubatch;
    relax(x, c, &relaxed);
    return x->status == LB_STATUS_OK;
}

/* How far a choice is from what was asked for, in what may change answers. */
static int sacrifice(const lb_plan_choice *c, const lb_plan_choice *start) {
    return (c->weight_bits != start->weight_bits) * (c->weight_bits == 4 ? 2 : 1) + (c->kv_q8 != start->kv_q8) +
           (start->crops_per_frame - c->crops_per_frame) + (start->tiles_per_frame - c->tiles_per_frame);
}

/* Less is better: first what changes answers, then crossings, then questions by themselves. */
static bool is_better(const search *x, const lb_plan_choice *a, const lb_plan_choice *b, const lb_plan_choice *start) {
    const int less = sacrifice(a, start) - sacrifice(b, start);
    if (less != 0)
        return less < 0;
    const int64_t fewer = crossings_of(x->request, a) - crossings_of(x->request, b);
    return fewer != 0 ? fewer < 0 : a->n_parallel >= b->n_parallel;
}

/* Layers on the host: of several devices or, where that is no worse, of the first alone. Small steps of several are the
 * last resort. */
static bool find_on_host(search *x, const lb_plan_choice *start, lb_plan_choice *choice) {
    lb_plan_choice several;
    const bool can_several = x->request->n_devices > 1 && !x->request->device[0].is_cpu;
    const bool fits_several = can_several && fit_on_host(x, start, false, &several);
    *choice = *start;
    const bool fits_one = x->status == LB_STATUS_OK && fit(x, choice);
    if (fits_several && (!fits_one || is_better(x, &several, choice, start)))
        *choice = several;
    if (fits_one || fits_several || x->status != LB_STATUS_OK)
        return x->status == LB_STATUS_OK;
    return can_several && fit_on_host(x, start, true, choice);
}

/* All that can be tried, from the start on; *choice is what fits, if anything does. */
static bool find(search *x, const lb_plan_choice *start, lb_plan_choice *choice) {
    const lb_plan_request *r = x->request;
    bool fits = false;
    /* the fewest devices that hold it as it is; else all of them with the ways to fit, spread by what is left beside
     * the parts as they are or, where that is nothing, as small as they can be; else all or one, with layers on the
     * host */
    for (int n = 1; n <= r->n_devices && (r->n_devices > 1 || r->more_devices) && !fits; n++) {
        *choice = *start;
        fits = x->status == LB_STATUS_OK && (n == 1 || spread(x, choice, n, false)) && try(x, choice);
    }
    if (r->more_devices)
        return fits;
    if (r->n_devices > 1) {
        lb_plan_choice tight = *start;
        for (int w = 0; w <= LB_WAY_N_UBATCH; w++)
            while (lb_plan_advance(r, (lb_plan_way)w, &tight))
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
    return fits || (x->status == LB_STATUS_OK && find_on_host(x, start, choice));
}

static bool fits_with(const search *x, const lb_plan_choice *start, size_t budget) {
    lb_plan plan = {.request = *x->request};
    for (int d = 0; d < plan.request.n_devices; d++)
        plan.request.device[d].budget_bytes = budget;
    search again = {.request = &plan.request, .sizer = x->sizer, .plan = &plan, .error = x->error};
    lb_plan_choice choice;
    return find(&again, start, &choice) && again.status == LB_STATUS_OK;
}

/* Of each device. One would do with the peak at the end of all ways. What several would do with no plan tells: how
 * layers are spread over them depends on the budgets. So that is looked for, to some two percent. */
static size_t smallest_budget(const search *x, const lb_plan_choice *start) {
    enum { N_LOOKS = 5 };
    if (x->request->n_devices == 1)
        return x->nearest_bytes;
    size_t high = x->alone_bytes, low = high / 2;
    if (x->nearest_bytes < high && fits_with(x, start, x->nearest_bytes))
        high = x->nearest_bytes;
    for (int i = 0; i < N_LOOKS && low < high; i++) {
        const size_t middle = low + (high - low) / 2;
        *(fits_with(x, start, middle) ? &high : &low) = middle;
    }
    return high;
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
    if (!fits && request->more_devices)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "%s does not hold it as it is, and there are other devices",
                            request->device[0].name);
    try(&x, fits ? &choice : &x.nearest); /* the last one tried may be another */
    lb_plan_describe(request, &start, plan);
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
