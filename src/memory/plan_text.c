/* The plan for people and for programs. */
#include "memory/plan.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double gib(size_t bytes) {
    return (double)bytes / (1 << 30);
}

static bool has_row(const lb_plan *plan, int d, int component) {
    for (int p = 0; p < LB_PHASE_COUNT; p++)
        if (plan->bytes[d][p][component])
            return true;
    return false;
}

static size_t phase_sum(const lb_plan *plan, int d, int phase) {
    size_t sum = 0;
    for (int i = 0; i < LB_COMPONENT_COUNT; i++)
        sum += plan->bytes[d][phase][i];
    return sum;
}

static bool counts(const lb_plan *plan, int phase) {
    return phase != LB_PHASE_DETECT || plan->request.detector;
}

static void head(FILE *out, const lb_plan *plan, const char *title) {
    fprintf(out, "  %-24s", title);
    for (int p = 0; p < LB_PHASE_COUNT; p++)
        if (counts(plan, p))
            fprintf(out, " %9s", lb_phase_text((lb_phase)p));
    fprintf(out, "\n");
}

static void device_table(FILE *out, const lb_plan *plan, int d) {
    const lb_plan_device *device = &plan->request.device[d];
    fprintf(out, "%s (%s): budget %.2f GiB", device->name, device->description, gib(device->budget_bytes));
    if (device->total_bytes)
        fprintf(out, ", %.2f of %.2f GiB free", gib(device->free_bytes), gib(device->total_bytes));
    fprintf(out, "\n");
    head(out, plan, "GiB");
    for (int i = 0; i < LB_COMPONENT_COUNT; i++) {
        if (!lb_component_on_device((lb_component)i) || !has_row(plan, d, i))
            continue;
        char name[64];
        snprintf(name, sizeof name, "%s%s", lb_component_text((lb_component)i),
                 i == LB_COMPONENT_LIBRARIES && !device->context_measured && !device->is_cpu ? "*" : "");
        fprintf(out, "  %-24s", name);
        for (int p = 0; p < LB_PHASE_COUNT; p++)
            if (counts(plan, p))
                fprintf(out, " %9.3f", gib(plan->bytes[d][p][i]));
        fprintf(out, "\n");
    }
    fprintf(out, "  %-24s", "together");
    for (int p = 0; p < LB_PHASE_COUNT; p++)
        if (counts(plan, p))
            fprintf(out, " %9.3f", gib(phase_sum(plan, d, p)));
    fprintf(out, "\n  peak %.2f GiB, at %s: %s\n", gib(plan->peak_bytes[d]), lb_phase_text(plan->peak_phase[d]),
            plan->peak_bytes[d] <= device->budget_bytes ? "fits" : "DOES NOT FIT");
    if (!device->context_measured && device->context_bytes > 0)
        fprintf(out, "  * assumed from a table: no such device is here to measure it\n");
    else if (!device->is_cpu && device->context_bytes == 0)
        fprintf(out, "  without what the driver and the libraries take, which is known of CUDA alone\n");
}

char *lb_plan_text(const lb_plan *plan) {
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out)
        return NULL;
    const lb_plan_request *r = &plan->request;
    const lb_plan_choice *c = &plan->choice;
    fprintf(out, "Memory plan: largest video %d frames, %d tiles", r->n_frames, plan->n_tiles);
    if (r->detector)
        fprintf(out, " (%d crops a frame at most)", c->crops_per_frame);
    fprintf(out, ", longest prompt %d tokens\n", plan->n_tokens);
    for (int d = 0; d < c->n_devices; d++)
        device_table(out, plan, d);
    fprintf(out, "Chosen: %d questions in flight, KV cache of %d tokens%s, %d prompt tokens a step, %d tiles",
            c->n_parallel, c->n_cells, c->kv_q8 ? " in q8_0" : "", c->n_ubatch, c->tile_batch);
    if (r->detector)
        fprintf(out, " and %d frames", c->frame_batch);
    fprintf(out, " a batch\n");
    if (c->n_devices > 1) {
        fprintf(out, "Layers:");
        for (int d = 0; d < c->n_devices; d++)
            fprintf(out, "%s %d on %s", d ? "," : "", c->n_layers_on[d], r->device[d].name);
        fprintf(out, " (the output counts as one); vision on %s\n", r->device[c->vision_device].name);
    }
    for (int i = 0; i < plan->n_steps; i++)
        fprintf(out, "To fit: %s\n", plan->step[i]);
    if (plan->n_steps == 0)
        fprintf(out, "Nothing has to be saved.\n");
    size_t host = 0;
    for (int i = 0; i < LB_COMPONENT_COUNT; i++)
        host += plan->host_bytes[i];
    fprintf(out, "Host memory: %.2f GiB (weights %.2f, tile embeddings %.2f, frames and tiles %.2f)\n", gib(host),
            gib(plan->host_bytes[LB_COMPONENT_HOST_WEIGHTS]), gib(plan->host_bytes[LB_COMPONENT_EMBEDDINGS]),
            gib(plan->host_bytes[LB_COMPONENT_FRAMES]));
    if (!plan->fits)
        fprintf(out, "It does not fit; the smallest --vram that would do is %.0fMiB\n",
                ceil((double)plan->smallest_bytes / (1 << 20)));
    fclose(out);
    return text;
}

static json_t *device_json(const lb_plan *plan, int d) {
    const lb_plan_device *device = &plan->request.device[d];
    json_t *phases = json_object();
    for (int p = 0; p < LB_PHASE_COUNT; p++) {
        if (!counts(plan, p))
            continue;
        json_t *rows = json_object();
        for (int i = 0; i < LB_COMPONENT_COUNT; i++)
            if (plan->bytes[d][p][i])
                json_object_set_new(rows, lb_component_name((lb_component)i),
                                    json_integer((json_int_t)plan->bytes[d][p][i]));
        json_object_set_new(rows, "together", json_integer((json_int_t)phase_sum(plan, d, p)));
        json_object_set_new(phases, lb_phase_text((lb_phase)p), rows);
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:i, s:I, s:s, s:b, s:o}", "name", device->name, "description",
                     device->description, "budget", (json_int_t)device->budget_bytes, "free",
                     (json_int_t)device->free_bytes, "total", (json_int_t)device->total_bytes, "context_measured",
                     (int)device->context_measured, "layers", plan->choice.n_layers_on[d], "peak",
                     (json_int_t)plan->peak_bytes[d], "peak_phase", lb_phase_text(plan->peak_phase[d]), "fits",
                     plan->peak_bytes[d] <= device->budget_bytes, "phases", phases);
}

static json_t *to_json(const lb_plan *plan) {
    const lb_plan_choice *c = &plan->choice;
    json_t *devices = json_array(), *steps = json_array();
    for (int d = 0; d < c->n_devices; d++)
        json_array_append_new(devices, device_json(plan, d));
    for (int i = 0; i < plan->n_steps; i++)
        json_array_append_new(steps, json_string(plan->step[i]));
    json_t *choice =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:i, s:b, s:i, s:i, s:i, s:i}", "tile_batch", c->tile_batch,
                  "frame_batch", c->frame_batch, "n_ubatch", c->n_ubatch, "n_parallel", c->n_parallel, "n_cells",
                  c->n_cells, "rest_compute", (int)c->rest_compute, "rest_context", (int)c->rest_context,
                  "rest_weights", (int)c->rest_weights, "n_host_layers", c->n_host_layers, "kv_q8", (int)c->kv_q8,
                  "weight_bits", c->weight_bits, "tiles_per_frame", c->tiles_per_frame, "crops_per_frame",
                  c->crops_per_frame, "vision_device", c->vision_device);
    json_t *host = json_object();
    for (int i = 0; i < LB_COMPONENT_COUNT; i++)
        if (plan->host_bytes[i])
            json_object_set_new(host, lb_component_name((lb_component)i),
                                json_integer((json_int_t)plan->host_bytes[i]));
    json_t *root =
        json_pack("{s:b, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:b}", "fits", (int)plan->fits, "n_frames",
                  plan->request.n_frames, "n_tiles", plan->n_tiles, "n_tokens", plan->n_tokens, "devices", devices,
                  "choice", choice, "steps", steps, "host", host, "changes_answers", (int)plan->changes_answers);
    if (!plan->fits && root)
        json_object_set_new(root, "smallest_budget", json_integer((json_int_t)plan->smallest_bytes));
    return root;
}

char *lb_plan_json(const lb_plan *plan) {
    json_t *root = to_json(plan);
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}

/* Most that the ledger saw of a component on a device in any phase from detect on. */
static size_t ledger_peak(int d, int component) {
    size_t most = 0;
    for (int p = 0; p < LB_PHASE_COUNT; p++) {
        size_t bytes = lb_ledger_peak_on(d, (lb_phase)p, (lb_component)component);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static size_t planned_peak(const lb_plan *plan, int d, int component) {
    size_t most = 0;
    for (int p = 0; p < LB_PHASE_COUNT; p++)
        most = plan->bytes[d][p][component] > most ? plan->bytes[d][p][component] : most;
    return most;
}

static size_t used_peak(const size_t (*used)[LB_PHASE_COUNT], int d) {
    size_t most = 0;
    for (int p = 0; used && p < LB_PHASE_COUNT; p++)
        most = used[d][p] > most ? used[d][p] : most;
    return most;
}

/* What the device says was used beyond all that the ledger knows, where the two are of one phase. */
static size_t measured_libraries(const size_t (*used)[LB_PHASE_COUNT], int d, int phase) {
    size_t known = lb_ledger_peak_on(d, (lb_phase)phase, LB_COMPONENT_COUNT);
    return used && used[d][phase] > known ? used[d][phase] - known : 0;
}

char *lb_plan_comparison_text(const lb_plan *plan, const size_t (*used)[LB_PHASE_COUNT]) {
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out)
        return NULL;
    for (int d = 0; d < plan->choice.n_devices; d++) {
        const lb_plan_device *device = &plan->request.device[d];
        fprintf(out, "%s, most at once (MiB)        planned  measured\n", device->name);
        for (int i = 0; i < LB_COMPONENT_COUNT; i++) {
            if (!lb_component_on_device((lb_component)i) || i == LB_COMPONENT_LIBRARIES)
                continue;
            size_t planned = planned_peak(plan, d, i), measured = ledger_peak(d, i);
            if (planned || measured)
                fprintf(out, "  %-28s %9.2f %9.2f\n", lb_component_text((lb_component)i), (double)planned / (1 << 20),
                        (double)measured / (1 << 20));
        }
        const size_t total = used_peak(used, d);
        if (!total) {
            size_t sum = 0, most = 0;
            for (int p = 0; p < LB_PHASE_COUNT; p++) {
                sum = lb_ledger_peak_on(d, (lb_phase)p, LB_COMPONENT_COUNT);
                most = sum > most ? sum : most;
            }
            fprintf(out, "  %-28s %9.2f %9.2f\n", "peak", (double)plan->peak_bytes[d] / (1 << 20),
                    (double)most / (1 << 20));
            continue;
        }
        for (int p = 0; p < LB_PHASE_COUNT; p++)
            if (counts(plan, p) && used[d][p])
                fprintf(out, "  libraries while %-12s %9.2f %9.2f\n", lb_phase_text((lb_phase)p),
                        (double)plan->bytes[d][p][LB_COMPONENT_LIBRARIES] / (1 << 20),
                        (double)measured_libraries(used, d, p) / (1 << 20));
        fprintf(out, "  %-28s %9.2f %9.2f (%+.2f %%)\n", "peak", (double)plan->peak_bytes[d] / (1 << 20),
                (double)total / (1 << 20), 100.0 * ((double)plan->peak_bytes[d] / (double)total - 1.0));
    }
    fclose(out);
    return text;
}

char *lb_plan_comparison_json(const lb_plan *plan, const size_t (*used)[LB_PHASE_COUNT]) {
    json_t *devices = json_array();
    for (int d = 0; d < plan->choice.n_devices; d++) {
        json_t *rows = json_object(), *phases = json_object();
        for (int i = 0; i < LB_COMPONENT_COUNT; i++) {
            if (!lb_component_on_device((lb_component)i) || i == LB_COMPONENT_LIBRARIES)
                continue;
            size_t planned = planned_peak(plan, d, i), measured = ledger_peak(d, i);
            if (planned || measured)
                json_object_set_new(
                    rows, lb_component_name((lb_component)i),
                    json_pack("{s:I, s:I}", "planned", (json_int_t)planned, "measured", (json_int_t)measured));
        }
        for (int p = 0; p < LB_PHASE_COUNT; p++)
            if (counts(plan, p))
                json_object_set_new(phases, lb_phase_text((lb_phase)p),
                                    json_pack("{s:I, s:I, s:I, s:I, s:I}", "planned", (json_int_t)phase_sum(plan, d, p),
                                              "ledger",
                                              (json_int_t)lb_ledger_peak_on(d, (lb_phase)p, LB_COMPONENT_COUNT),
                                              "device", (json_int_t)(used ? used[d][p] : 0), "libraries_planned",
                                              (json_int_t)plan->bytes[d][p][LB_COMPONENT_LIBRARIES],
                                              "libraries_measured", (json_int_t)measured_libraries(used, d, p)));
        json_array_append_new(devices, json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "name", plan->request.device[d].name,
                                                 "budget", (json_int_t)plan->request.device[d].budget_bytes,
                                                 "peak_planned", (json_int_t)plan->peak_bytes[d], "peak_measured",
                                                 (json_int_t)used_peak(used, d), "components", rows, "phases", phases));
    }
    json_t *root = json_pack("{s:o}", "devices", devices);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
