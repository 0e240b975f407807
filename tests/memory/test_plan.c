/* The search for a plan, with a sizer that is made up: each part's bytes follow from the choice by a plain formula. */
#include "memory/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

enum { N_LAYER = 24, ALL = 31 /* all that can be allowed */ };

/* Like InternVL3-8B with a detector: 14 GiB of weights, of which fewer bits take a share. */
static lb_status sizes_of(void *user, const lb_plan_choice *c, lb_plan_sizes *s, lb_error *error) {
    (void)error;
    int *n_calls = user;
    ++*n_calls;
    const size_t layer = 600 * MIB / (c->weight_bits == 4 ? 4 : c->weight_bits == 8 ? 2 : 1);
    int given = 0;
    for (int d = 0; d < c->n_devices; d++) {
        const int n = c->n_layers_on[d];
        const bool last = given + n == N_LAYER + 1;
        const int own = n - last, waiting = c->n_host_layers - given; /* the first ones are on the host */
        const int on_host = waiting < 0 ? 0 : waiting > own ? own : waiting;
        s->language_weights[d] = (size_t)(own - on_host) * layer + (last ? 900 * MIB : 0);
        s->kv[d] = (size_t)c->n_cells * (size_t)(n - last) * 4096 / (c->kv_q8 ? 2 : 1);
        s->language_compute[d] = (size_t)c->n_ubatch * 600 * 1024;
        s->language_pool[d] = 34 * MIB;
        given += n;
    }
    s->host_layer_weights = (size_t)c->n_host_layers * layer;
    s->vision_weights = 600 * MIB;
    s->vision_compute = (size_t)c->tile_batch * 60 * MIB;
    s->vision_pool = 34 * MIB + (size_t)c->tile_batch * 8 * MIB;
    s->detector_weights = 400 * MIB;
    s->detector_text = 1 * MIB;
    s->text_encoder = 420 * MIB;
    s->detector_compute = (size_t)c->frame_batch * 300 * MIB;
    s->detector_pool = 34 * MIB + (size_t)c->frame_batch * 20 * MIB;
    return LB_STATUS_OK;
}

static lb_plan_request request_of(int n_devices, size_t budget, unsigned allow, bool detector) {
    lb_plan_request r = {.n_devices = n_devices,
                         .allow = allow,
                         .n_frames = 8,
                         .tiles_per_frame = 7,
                         .crops_per_frame = detector ? 5 : 0,
                         .tokens_per_tile = 256,
                         .text_tokens = 400,
                         .question_tokens = 200,
                         .new_tokens = 512,
                         .n_layer = N_LAYER,
                         .detector = detector,
                         .tile_batch = 4,
                         .frame_batch = 8,
                         .n_ubatch = 512,
                         .n_parallel = 8,
                         .reuse = true};
    for (int d = 0; d < n_devices; d++) {
        snprintf(r.device[d].name, sizeof r.device[d].name, "CUDA%d", d);
        r.device[d].total_bytes = r.device[d].free_bytes = 80 * GIB;
        r.device[d].budget_bytes = budget;
        r.device[d].context_bytes = 527 * MIB;
    }
    return r;
}

static lb_plan plan; /* some 20 KiB */

static lb_status make(const lb_plan_request *r, lb_error *error) {
    int n_calls = 0;
    lb_status status = lb_plan_make(r, &(lb_plan_sizer){&n_calls, sizes_of}, &plan, error);
    assert_true(n_calls > 0 && n_calls < 2000);
    return status;
}

/* What holds of every plan that fits: each device within its budget, the peak is the table's largest sum, all layers
 * are somewhere. */
static void check_plan(const lb_plan_request *r) {
    int n_layers = 0;
    for (int d = 0; d < plan.choice.n_devices; d++) {
        size_t peak = 0;
        for (int p = 0; p < LB_PHASE_COUNT; p++) {
            size_t sum = 0;
            for (int c = 0; c < LB_COMPONENT_COUNT; c++)
                sum += plan.bytes[d][p][c];
            if (p == (int)plan.peak_phase[d])
                assert_int_equal(sum, plan.peak_bytes[d]);
            peak = sum > peak ? sum : peak;
        }
        assert_int_equal(peak, plan.peak_bytes[d]);
        if (plan.fits && peak > r->device[d].budget_bytes)
            fail_msg("device %d: a peak of %zu MiB in a budget of %zu", d, peak / MIB, r->device[d].budget_bytes / MIB);
        assert_true(plan.choice.n_layers_on[d] >= 0);
        n_layers += plan.choice.n_layers_on[d];
    }
    assert_int_equal(n_layers, N_LAYER + 1);
    assert_in_range(plan.choice.n_devices, 1, r->n_devices);
    assert_in_range(plan.choice.vision_device, 0, plan.choice.n_devices - 1);
    assert_int_equal(plan.choice.n_cells, lb_plan_cells(r, &plan.choice));
}

static size_t smallest_of(const lb_plan_request *model) {
    lb_plan_request r = *model;
    lb_error error = {0};
    for (int d = 0; d < r.n_devices; d++)
        r.device[d].budget_bytes = 1;
    assert_int_equal(make(&r, &error), LB_STATUS_DOES_NOT_FIT);
    assert_false(plan.fits);
    assert_non_null(strstr(error.message, "does not fit"));
    assert_true(plan.smallest_bytes > 0);
    return plan.smallest_bytes;
}

static void test_a_smaller_budget_never_gives_a_larger_peak(void **state) {
    (void)state;
    static const unsigned allowed[] = {0,
                                       LB_ALLOW_KV_Q8,
                                       LB_ALLOW_WEIGHTS_Q8,
                                       LB_ALLOW_WEIGHTS_Q8 | LB_ALLOW_WEIGHTS_Q4,
                                       LB_ALLOW_FEWER_CROPS | LB_ALLOW_FEWER_TILES,
                                       ALL};
    for (size_t a = 0; a < sizeof allowed / sizeof *allowed; a++)
        for (int detector = 0; detector < 2; detector++) {
            size_t before = SIZE_MAX, n_fit = 0;
            bool fitted = true;
            for (size_t budget = 40 * GIB; budget >= 1 * GIB; budget -= 64 * MIB) {
                const lb_plan_request r = request_of(1, budget, allowed[a], detector);
                lb_error error = {0};
                const lb_status status = make(&r, &error);
                assert_true(status == LB_STATUS_OK || status == LB_STATUS_DOES_NOT_FIT);
                assert_int_equal(status == LB_STATUS_OK, plan.fits);
                check_plan(&r);
                if (plan.fits && !fitted)
                    fail_msg("allow %u: fits in %zu MiB, and not in 64 MiB more", allowed[a], budget / MIB);
                fitted = plan.fits;
                n_fit += fitted;
                if (fitted && plan.peak_bytes[0] > before)
                    fail_msg("allow %u, detector %d: a peak of %zu MiB in a budget of %zu, less with 64 MiB more",
                             allowed[a], detector, plan.peak_bytes[0] / MIB, budget / MIB);
                if (fitted)
                    before = plan.peak_bytes[0];
            }
            assert_true(n_fit > 100);
        }
}

static bool says(const char *words) {
    for (int i = 0; i < plan.n_steps; i++)
        if (strstr(plan.step[i], words))
            return true;
    return false;
}

/* The budgets at which each way is first taken, going down: what leaves answers as they are before what may not, and
 * layers on the host last of all. */
static void test_ways_are_taken_in_order(void **state) {
    (void)state;
    static const char *const free_ways[] = {"take turns",
                                            "made for each video",
                                            "tiles in a batch",
                                            "frames in the detector's",
                                            "prompt tokens in a step",
                                            "pinned host memory",
                                            "questions in flight"};
    static const char *const allowed_ways[] = {"8-bit weights", "q8_0 KV", "4-bit weights", "crops a frame",
                                               "tiles a frame"};
    bool was_free = true;
    size_t first_allowed = 0, first_host = 0, last_plain = 0;
    for (size_t budget = 40 * GIB; budget >= 1 * GIB; budget -= 16 * MIB) {
        const lb_plan_request r = request_of(1, budget, ALL, true);
        lb_error error = {0};
        if (make(&r, &error) != LB_STATUS_OK)
            break;
        bool any_free = false, any_allowed = false;
        for (size_t i = 0; i < sizeof free_ways / sizeof *free_ways; i++)
            any_free |= says(free_ways[i]);
        for (size_t i = 0; i < sizeof allowed_ways / sizeof *allowed_ways; i++)
            any_allowed |= says(allowed_ways[i]);
        assert_int_equal(any_allowed, plan.changes_answers);
        if (!any_free && !any_allowed && plan.choice.n_host_layers == 0)
            last_plain = budget;
        if (any_allowed && was_free && !first_allowed)
            first_allowed = budget;
        if (plan.choice.n_host_layers > 0 && !first_host)
            first_host = budget;
        if (!any_allowed && first_allowed)
            fail_msg("%zu MiB needs nothing that changes answers, a larger budget did", budget / MIB);
        was_free = any_free;
    }
    assert_true(last_plain > first_allowed && first_allowed > first_host && first_host > 0);
    /* just below what everything takes, what leaves the answers alone does */
    lb_plan_request r = request_of(1, last_plain - 16 * MIB, ALL, true);
    lb_error error = {0};
    assert_int_equal(make(&r, &error), LB_STATUS_OK);
    assert_false(plan.changes_answers);
    assert_true(plan.n_steps > 0);
    /* without leave nothing that changes answers is ever done */
    for (size_t budget = 40 * GIB; budget >= 1 * GIB; budget -= 64 * MIB) {
        r = request_of(1, budget, 0, true);
        make(&r, &error);
        assert_false(plan.changes_answers);
        assert_int_equal(plan.choice.weight_bits, 0);
        assert_false(plan.choice.kv_q8);
        assert_int_equal(plan.choice.tiles_per_frame, 7);
        assert_int_equal(plan.choice.crops_per_frame, 5);
    }
}

/* One way alone is enough just below what everything takes: then it is the only one, and it is the first. */
static void test_first_way_first(void **state) {
    (void)state;
    lb_plan_request r = request_of(1, 80 * GIB, ALL, true);
    lb_error error = {0};
    assert_int_equal(make(&r, &error), LB_STATUS_OK);
    assert_int_equal(plan.n_steps, 0);
    r.device[0].budget_bytes = plan.peak_bytes[0];
    assert_int_equal(make(&r, &error), LB_STATUS_OK);
    assert_int_equal(plan.n_steps, 0); /* exactly as much as is needed is enough */
    r.device[0].budget_bytes--;
    assert_int_equal(make(&r, &error), LB_STATUS_OK);
    assert_int_equal(plan.n_steps, 1);
    assert_true(plan.choice.rest_compute);
}

/* Where keys and values are all that there is to save, the ways before "questions in flight" are tried in vain. */
static lb_status mostly_cache(void *user, const lb_plan_choice *c, lb_plan_sizes *s, lb_error *error) {
    (void)user, (void)error;
    s->language_weights[0] = 4 * GIB;
    s->kv[0] = (size_t)c->n_cells * 65536;
    s->language_compute[0] = (size_t)c->n_ubatch * 1024;
    s->vision_weights = 10 * MIB;
    s->vision_compute = (size_t)c->tile_batch * MIB;
    return LB_STATUS_OK;
}

static void test_what_is_not_needed_is_taken_back(void **state) {
    (void)state;
    const lb_plan_sizer sizer = {NULL, mostly_cache};
    lb_plan_request r = request_of(1, 80 * GIB, ALL, false);
    r.question_tokens = 4000;
    lb_error error = {0};
    assert_int_equal(lb_plan_make(&r, &sizer, &plan, &error), LB_STATUS_OK);
    lb_plan_choice start = plan.choice;
    r.device[0].budget_bytes = plan.peak_bytes[0] - 200 * MIB;
    assert_int_equal(lb_plan_make(&r, &sizer, &plan, &error), LB_STATUS_OK);
    start.n_parallel /= 2;
    start.n_cells = plan.choice.n_cells;
    assert_memory_equal(&plan.choice, &start, sizeof start); /* everything else is as it was */
    assert_int_equal(plan.n_steps, 1);
    assert_non_null(strstr(plan.step[0], "4 questions in flight in place of 8"));
    assert_false(plan.changes_answers);
    /* and with what is allowed: 4-bit weights alone do, so the q8_0 cache tried before them is given up again */
    r = request_of(1, 80 * GIB, LB_ALLOW_KV_Q8 | LB_ALLOW_WEIGHTS_Q4, false);
    int n_calls = 0;
    const lb_plan_sizer plain = {&n_calls, sizes_of};
    r.device[0].budget_bytes = 8 * GIB;
    assert_int_equal(lb_plan_make(&r, &plain, &plan, &error), LB_STATUS_OK);
    assert_int_equal(plan.choice.weight_bits, 4);
    assert_false(plan.choice.kv_q8);
    assert_int_equal(plan.choice.n_ubatch, 512);
    assert_int_equal(plan.choice.n_parallel, 8);
    assert_int_equal(plan.choice.n_host_layers, 0);
}

/* Of layers on the host, in the steps of the prompt. */
static int64_t crossings(const lb_plan_request *r, const lb_plan_choice *c) {
    const int n_tokens = r->n_frames * (c->tiles_per_frame + c->crops_per_frame) * r->tokens_per_tile + r->text_tokens;
    return (int64_t)c->n_host_layers * ((n_tokens + c->n_ubatch - 1) / c->n_ubatch);
}

/* Layers on the host cross once a step: steps are larger then, unless the user named their size, and no question is
 * asked alone for it. */
static void test_host_layers_cross_seldom(void **state) {
    (void)state;
    int n_larger = 0;
    for (size_t budget = 15 * GIB; budget >= 5 * GIB; budget -= 256 * MIB) {
        int64_t crossed[2];
        for (int fixed = 0; fixed < 2; fixed++) {
            lb_plan_request r = request_of(1, budget, 0, false);
            r.fixed_ubatch = fixed;
            lb_error error = {0};
            assert_int_equal(make(&r, &error), LB_STATUS_OK);
            crossed[fixed] = crossings(&r, &plan.choice) + 4 * plan.choice.n_host_layers; /* and those of questions */
            if (plan.choice.n_host_layers > 0) {
                assert_int_equal(plan.choice.n_parallel, r.n_parallel);
                assert_true(fixed ? plan.choice.n_ubatch == r.n_ubatch : plan.choice.n_ubatch >= r.n_ubatch);
            }
        }
        assert_true(crossed[0] <= crossed[1]);
        n_larger += crossed[0] < crossed[1];
    }
    assert_true(n_larger > 10);
}

static void test_smallest_budget_fits(void **state) {
    (void)state;
    static const unsigned allowed[] = {0, LB_ALLOW_WEIGHTS_Q8, ALL};
    for (size_t a = 0; a < sizeof allowed / sizeof *allowed; a++)
        for (int detector = 0; detector < 2; detector++)
            for (int n = 1; n <= 8; n *= 2) {
                lb_plan_request r = request_of(n, 1, allowed[a], detector);
                const size_t smallest = smallest_of(&r);
                lb_error error = {0};
                for (int d = 0; d < n; d++)
                    r.device[d].budget_bytes = smallest;
                if (make(&r, &error) != LB_STATUS_OK)
                    fail_msg("%d devices, allow %u: the smallest budget, %zu MiB, does not do: %s", n, allowed[a],
                             smallest / MIB, error.message);
                check_plan(&r);
                if (n > 1)
                    continue; /* spread otherwise less may do on one */
                r.device[0].budget_bytes = smallest - 1;
                assert_int_equal(make(&r, &error), LB_STATUS_DOES_NOT_FIT);
            }
}

/* What is said to be enough of several devices is, also where it is found for a budget that is nearly enough. */
static void test_smallest_budget_of_several_fits(void **state) {
    (void)state;
    lb_error error = {0};
    for (int detector = 0; detector < 2; detector++)
        for (int n = 2; n <= 8; n *= 2) {
            size_t least = SIZE_MAX;
            for (size_t budget = 20 * GIB; budget > GIB; budget -= GIB / 16) {
                lb_plan_request r = request_of(n, budget, 0, detector);
                if (make(&r, &error) == LB_STATUS_OK) {
                    check_plan(&r);
                    continue;
                }
                const size_t smallest = plan.smallest_bytes;
                assert_true(smallest > budget);
                for (int d = 0; d < n; d++)
                    r.device[d].budget_bytes = smallest;
                if (make(&r, &error) != LB_STATUS_OK)
                    fail_msg("%d devices of %zu MiB: the smallest budget, %zu MiB, does not do: %s", n, budget / MIB,
                             smallest / MIB, error.message);
                check_plan(&r);
                least = smallest < least ? smallest : least;
                for (int d = 0; d < n; d++)
                    r.device[d].budget_bytes = smallest / 100 * 96;
                if (make(&r, &error) == LB_STATUS_OK)
                    fail_msg("%d devices: %zu MiB would do, and %zu do", n, smallest / MIB, smallest / MIB * 96 / 100);
            }
            print_message("%d devices%s: %zu MiB each\n", n, detector ? " with a detector" : "", least / MIB);
        }
}

/* A second device that holds next to nothing does not make host layers cross more often than the first alone would. */
static void test_host_layers_of_unequal_devices(void **state) {
    (void)state;
    lb_error error = {0};
    static const size_t budgets[][4] = {{5438, 2175}, {9935, 2185, 1661, 1411}, {12676, 5957, 2680, 1501}};
    int n_plans = 0;
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++)
        for (int detector = 0; detector < 2; detector++) {
            lb_plan_request alone = request_of(1, budgets[i][0] * MIB, 0, detector), r = alone;
            while (r.n_devices < 4 && budgets[i][r.n_devices]) {
                r.device[r.n_devices] = r.device[0];
                r.device[r.n_devices].budget_bytes = budgets[i][r.n_devices] * MIB;
                r.n_devices++;
            }
            if (make(&alone, &error) != LB_STATUS_OK)
                continue;
            const lb_plan_choice one = plan.choice;
            assert_int_equal(make(&r, &error), LB_STATUS_OK);
            check_plan(&r);
            print_message("first of %d: %lld crossings, alone %lld\n", r.n_devices,
                          (long long)crossings(&r, &plan.choice), (long long)crossings(&alone, &one));
            assert_true(crossings(&r, &plan.choice) <= crossings(&alone, &one));
            n_plans++;
        }
    assert_int_equal(n_plans, 6);
}

/* Several that do not hold all keep more than one of them would, and the first one alone works on what waits on the
 * host. */
static void test_host_layers_of_several(void **state) {
    (void)state;
    lb_error error = {0};
    for (int detector = 0; detector < 2; detector++)
        for (int n = 2; n <= 8; n *= 2) {
            int n_plans = 0;
            for (size_t budget = 12 * GIB; budget > 2 * GIB; budget -= GIB / 8) {
                lb_plan_request alone = request_of(1, budget, 0, detector), r = request_of(n, budget, 0, detector);
                if (make(&alone, &error) != LB_STATUS_OK)
                    break;
                const lb_plan_choice one = plan.choice;
                assert_int_equal(make(&r, &error), LB_STATUS_OK);
                check_plan(&r);
                const lb_plan_choice *c = &plan.choice;
                if (c->n_host_layers == 0)
                    continue;
                n_plans++;
                assert_true(c->n_devices > 1 && c->n_host_layers <= c->n_layers_on[0]);
                assert_true(c->n_host_layers < one.n_host_layers);
                assert_true(crossings(&r, c) <= crossings(&alone, &one));
            }
            print_message("%d devices%s: %d budgets with layers on the host\n", n, detector ? " with a detector" : "",
                          n_plans);
            assert_true(n == 8 || n_plans > 0);
        }
}

/* What is shown of a plan that does not fit is the one that comes nearest, also where no smaller steps are left to try.
 */
static void test_what_does_not_fit_is_shown_as_small_as_can_be(void **state) {
    (void)state;
    for (int n_ubatch = 16; n_ubatch <= 512; n_ubatch *= 2)
        for (int n_devices = 1; n_devices <= 2; n_devices++) {
            lb_plan_request r = request_of(n_devices, 1, 0, false);
            r.n_ubatch = n_ubatch;
            r.fixed_ubatch = true;
            const size_t smallest = smallest_of(&r);
            if (plan.choice.n_devices > 1) /* no layers on the host then */
                continue;
            assert_int_equal(plan.choice.n_host_layers, N_LAYER);
            assert_int_equal(plan.choice.n_ubatch, n_ubatch < 64 ? n_ubatch : 64);
            assert_true(n_devices == 1 ? plan.peak_bytes[0] == smallest : plan.peak_bytes[0] >= smallest);
        }
}

/* The largest that the options take: more tokens than an int counts. Nothing here may overflow. */
static void test_as_much_as_options_take(void **state) {
    (void)state;
    lb_plan_request r = request_of(1, 4 * GIB, 0, true);
    r.n_frames = 1024;
    r.crops_per_frame = 1 << 14;
    lb_error error = {0};
    assert_int_equal(make(&r, &error), LB_STATUS_DOES_NOT_FIT);
    assert_int_equal(plan.n_tokens, INT32_MAX);
    assert_true(plan.choice.n_host_layers == N_LAYER && plan.smallest_bytes > 4 * GIB);
}

static void test_devices(void **state) {
    (void)state;
    lb_error error = {0};
    for (int n = 1; n <= 8; n *= 2) {
        lb_plan_request r = request_of(n, 40 * GIB, 0, true);
        assert_int_equal(make(&r, &error), LB_STATUS_OK);
        check_plan(&r);
        assert_int_equal(plan.choice.n_devices, 1); /* no more than it takes */
        assert_int_equal(plan.n_steps, 0);
        r = request_of(n, 24 * GIB / (size_t)n + 3 * GIB / 2, 0, true);
        const lb_status status = make(&r, &error);
        if (status != LB_STATUS_OK)
            fail_msg("%d devices: %s", n, error.message);
        check_plan(&r);
    }
    /* with budgets of their own: the small one gets less */
    lb_plan_request r = request_of(2, 0, 0, false);
    r.device[0].budget_bytes = 14 * GIB;
    r.device[1].budget_bytes = 6 * GIB;
    assert_int_equal(make(&r, &error), LB_STATUS_OK);
    check_plan(&r);
    assert_int_equal(plan.choice.n_devices, 2);
    assert_true(plan.choice.n_layers_on[0] > plan.choice.n_layers_on[1] && plan.choice.n_layers_on[1] > 0);
}

static lb_status broken_sizer(void *user, const lb_plan_choice *c, lb_plan_sizes *s, lb_error *error) {
    (void)c, (void)s;
    int *left = user;
    if ((*left)-- > 0)
        return sizes_of(&(int){0}, c, s, error);
    snprintf(error->message, sizeof error->message, "x.gguf: gone");
    return error->status = LB_STATUS_NOT_FOUND;
}

static void test_the_sizers_error_comes_through(void **state) {
    (void)state;
    for (int n = 0; n < 30; n++)
        for (int devices = 1; devices <= 2; devices++) {
            const lb_plan_request r = request_of(devices, 2 * GIB, ALL, true);
            int left = n;
            lb_error error = {0};
            assert_int_equal(lb_plan_make(&r, &(lb_plan_sizer){&left, broken_sizer}, &plan, &error),
                             LB_STATUS_NOT_FOUND);
            assert_string_equal(error.message, "x.gguf: gone");
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_smaller_budget_never_gives_a_larger_peak),
        cmocka_unit_test(test_ways_are_taken_in_order),
        cmocka_unit_test(test_first_way_first),
        cmocka_unit_test(test_what_is_not_needed_is_taken_back),
        cmocka_unit_test(test_host_layers_cross_seldom),
        cmocka_unit_test(test_host_layers_of_unequal_devices),
        cmocka_unit_test(test_host_layers_of_several),
        cmocka_unit_test(test_smallest_budget_fits),
        cmocka_unit_test(test_smallest_budget_of_several_fits),
        cmocka_unit_test(test_what_does_not_fit_is_shown_as_small_as_can_be),
        cmocka_unit_test(test_as_much_as_options_take),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_the_sizers_error_comes_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
