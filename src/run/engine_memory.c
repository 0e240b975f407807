/* The engine and its memory plan: made before anything is loaded, held against what happened afterwards. */
#include "base/error.h"
#include "base/log.h"
#include "run/dialogue.h"
#include "run/engine_internal.h"
#include "run/planner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What lb_findings_make writes for a frame full of detections of the longest text. */
static char *fullest_line(const char *text, int n) {
    char *line = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&line, &size);
    if (!out)
        return NULL;
    fprintf(out, "%d (", n);
    for (int i = 0; i < n; i++)
        fprintf(out, "%s%s", i ? ", " : "", text);
    fprintf(out, ")");
    fclose(out);
    return line;
}

static lb_status tokens_of(const lb_tokenizer *tokenizer, const lb_prompt_template *prompt_template, const char *system,
                           const lb_prompt_values *values, const int *tiles, lb_tokens *tokens, lb_error *error) {
    lb_prompt prompt = {0};
    lb_status status = lb_prompt_fill(prompt_template, values, &prompt, error);
    if (status == LB_STATUS_OK)
        status = lb_dialogue_tokens(tokenizer, system, &prompt, tiles, 1, tokens, error);
    lb_prompt_free(&prompt);
    return status;
}

lb_status lb_engine_count_tokens(const lb_tokenizer *tokenizer, const lb_prompt_template *prompt_template,
                                 const char *system, const lb_engine_params *params, const char *longest_text,
                                 int *text_tokens, int *question_tokens, lb_error *error) {
    const lb_engine_work *work = params->work;
    const int n = work->n_frames;
    const char **lines = calloc((size_t)n, sizeof *lines);
    int *tiles = calloc((size_t)n, sizeof *tiles);
    char *line = longest_text ? fullest_line(longest_text, params->max_detections) : NULL;
    lb_status status = lines && tiles && (line || !longest_text)
                           ? LB_STATUS_OK
                           : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the plan");
    for (int i = 0; i < n && status == LB_STATUS_OK; i++) {
        lines[i] = line;
        tiles[i] = 1; /* one token of "a tile" for each frame: taken off again below */
    }
    /* two questions with nothing in common tell where the shared beginning ends */
    static const char *const choices[] = {"0", "1"};
    const lb_engine_question probes[] = {{.text = "0", .choices = choices, .n_choices = 2},
                                         {.text = "?", .choices = choices, .n_choices = 2}};
    lb_tokens first = {0};
    size_t shared = 0, longest = 0;
    for (int i = 0; i < work->n_longest + 2 && status == LB_STATUS_OK; i++) {
        const lb_engine_question *q = i < 2 ? &probes[i] : &work->longest[i - 2];
        const lb_prompt_values values = {.n_frames = n,
                                         .detections = line ? lines : NULL,
                                         .question = q->text,
                                         .choices = q->choices,
                                         .n_choices = q->n_choices};
        lb_tokens tokens = {0};
        status = tokens_of(tokenizer, prompt_template, system, &values, tiles, &tokens, error);
        if (status != LB_STATUS_OK && i >= 2) { /* a question that is no prompt fails for itself later */
            status = LB_STATUS_OK;
            lb_tokens_free(&tokens);
            continue;
        }
        if (i == 0) {
            first = tokens;
            longest = tokens.n;
            continue;
        }
        if (i == 1)
            while (shared < first.n && shared < tokens.n && first.id[shared] == tokens.id[shared])
                shared++;
        longest = tokens.n > longest ? tokens.n : longest;
        lb_tokens_free(&tokens);
    }
    lb_tokens_free(&first);
    free(line);
    free(lines);
    free(tiles);
    if (status != LB_STATUS_OK)
        return status;
    *question_tokens = (int)(longest - shared);
    *text_tokens = (int)shared > n ? (int)shared - n : 0;
    return LB_STATUS_OK;
}

/* --ram and --cache: the plan's choice has a share in host memory, and a clip must have room beside it. */
static lb_status fit_host(const lb_engine_params *params, lb_plan *plan, lb_error *error) {
    size_t *frames = &plan->host_bytes[LB_COMPONENT_FRAMES];
    const size_t clip = plan->clip_bytes;
    const size_t rest = plan->host_bytes[LB_COMPONENT_HOST_WEIGHTS] + plan->host_bytes[LB_COMPONENT_EMBEDDINGS];
    if (params->cache_bytes > 0 && *frames > params->cache_bytes)
        *frames = params->cache_bytes;
    if (params->ram_bytes == 0)
        return LB_STATUS_OK;
    const size_t left = params->ram_bytes > rest ? params->ram_bytes - rest : 0;
    if (*frames > left)
        *frames = left;
    if (left >= clip && left > 0)
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_DOES_NOT_FIT,
                        "--ram %.1f MiB: weights that wait in host memory take %.1f MiB, a video's embeddings %.1f MiB "
                        "and its frames and tiles %.1f MiB; raise --ram, or --vram so that fewer weights wait, or take "
                        "fewer frames or tiles",
                        (double)params->ram_bytes / (1 << 20),
                        (double)plan->host_bytes[LB_COMPONENT_HOST_WEIGHTS] / (1 << 20),
                        (double)plan->host_bytes[LB_COMPONENT_EMBEDDINGS] / (1 << 20), (double)clip / (1 << 20));
}

lb_status lb_engine_plan(lb_engine_params *params, lb_plan *plan, lb_error *error) {
    lb_prompt_template *prompt_template = NULL;
    lb_tokenizer *tokenizer = NULL;
    lb_planner *planner = NULL;
    char *text = NULL;
    memset(plan, 0, sizeof *plan);
    lb_plan_load load = {.n_frames = params->work->n_frames,
                         .tiles_per_frame = params->work->tiles_per_frame,
                         .picture_width = params->work->picture_width,
                         .picture_height = params->work->picture_height,
                         .frame_bytes = params->work->frame_bytes};
    lb_status status = lb_engine_check_system(params, error);
    if (status == LB_STATUS_OK)
        status = lb_prompt_template_read(params->prompt_path, &prompt_template, error);
    if (status == LB_STATUS_OK)
        status = lb_tokenizer_open(params->vlm.model_path, &tokenizer, error);
    if (status == LB_STATUS_OK && params->detector_path)
        status = lb_find_longest_text(params->detector_path, params->labels_path, &text, error);
    if (status == LB_STATUS_OK)
        status = lb_engine_count_tokens(tokenizer, prompt_template, params->system ? params->system : lb_system_message,
                                        params, text, &load.text_tokens, &load.question_tokens, error);
    if (status == LB_STATUS_OK)
        status = lb_planner_open(params, &load, &planner, error);
    if (status == LB_STATUS_OK)
        status = lb_planner_make(planner, plan, error);
    if (status == LB_STATUS_OK)
        status = fit_host(params, plan, error);
    lb_planner_free(planner);
    if (status == LB_STATUS_OK)
        params->tokenizer = tokenizer; /* half a second to open */
    else
        lb_tokenizer_free(tokenizer);
    lb_prompt_template_free(prompt_template);
    free(text);
    return status;
}

/* What each device says that this process holds, as far as it says so. */
static void note_used(lb_engine *engine, lb_phase phase) {
    for (int d = 0; engine->plan && d < engine->plan->choice.n_devices; d++) {
        const lb_device *device = &engine->device[d];
        const size_t used = device->handle && !device->is_cpu ? lb_device_reserved_bytes(device) : 0;
        if (used > engine->used[d][phase])
            engine->used[d][phase] = used;
    }
}

void lb_engine_phase(lb_engine *engine, lb_phase phase) {
    note_used(engine, lb_ledger_phase_now());
    lb_ledger_phase(phase);
}

char *lb_engine_memory_text(lb_engine *engine) {
    if (!engine->plan)
        return NULL;
    note_used(engine, lb_ledger_phase_now());
    return lb_plan_comparison_text(engine->plan, (const size_t(*)[LB_PHASE_COUNT])engine->used);
}

char *lb_engine_memory_json(lb_engine *engine) {
    return engine->plan ? lb_plan_comparison_json(engine->plan, (const size_t(*)[LB_PHASE_COUNT])engine->used) : NULL;
}
