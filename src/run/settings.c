#include "run/settings.h"

#include "answer/prompt.h"
#include "base/error.h"
#include "base/sha256.h"
#include "run/dialogue.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void lb_settings_add(lb_settings *settings, lb_setting_rule rule, const char *name, const char *what,
                     const char *format, ...) {
    char *value = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&value, format, args) < 0 || settings->n == LB_SETTINGS_MAX) {
        settings->out_of_memory = true;
        if (settings->n == LB_SETTINGS_MAX)
            free(value);
    } else {
        settings->entry[settings->n++] = (lb_setting){name, what, value, rule};
    }
    va_end(args);
}

void lb_settings_add_device(lb_settings *settings, const lb_child_state *state) {
    /* "CUDA0" and "CUDA1" count the same way */
    size_t n = strlen(state->device);
    while (n && state->device[n - 1] >= '0' && state->device[n - 1] <= '9')
        n--;
    lb_settings_add(settings, LB_SETTING_BINDS, "device", "--device", "%.*s", (int)n, state->device);
    /* batches and cache types that the plan chose: another plan rounds otherwise */
    lb_settings_add(settings, LB_SETTING_BINDS, "plan",
                    "what the memory plan does (--vram, --allow, --weight-bits, --kv-bits)", "%s",
                    state->adapted ? state->adapted : "");
    lb_settings_add(settings, LB_SETTING_NOTED, "device_description", "the device", "%s", state->device_description);
}

void lb_settings_free(lb_settings *settings) {
    for (size_t i = 0; i < settings->n; i++)
        free(settings->entry[i].value);
    *settings = (lb_settings){0};
}

/* Which questions there are decides what shares a batch: all of them are hashed, in their order. The truth is left out:
 * it changes no answer. */
static void add_questions(lb_settings *settings, const lb_dataset *dataset) {
    lb_sha256 hash;
    char hex[LB_SHA256_HEX];
    lb_sha256_init(&hash);
    for (size_t i = 0; i < dataset->n_questions; i++) {
        const lb_question *q = &dataset->question[i];
        lb_sha256_add_text(&hash, q->id ? q->id : "");
        lb_sha256_add_text(&hash, q->text ? q->text : "");
        lb_sha256_add_text(&hash, q->video_path ? q->video_path : "");
        lb_sha256_add(&hash, &q->n_choices, sizeof q->n_choices);
        for (int k = 0; k < q->n_choices; k++)
            lb_sha256_add_text(&hash, q->choice[k]);
    }
    lb_sha256_hex(&hash, hex);
    lb_settings_add(settings, LB_SETTING_BINDS, "n_questions", "the number of questions (the file, --samples)", "%zu",
                    dataset->n_questions);
    lb_settings_add(settings, LB_SETTING_BINDS_HIDDEN, "questions_sha256", "the questions file", "%s", hex);
}

static lb_status add_template(lb_settings *settings, const char *path, lb_error *error) {
    struct stat st;
    if (path && stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return lb_error_set(error, LB_STATUS_REFUSED,
                            "--prompt %s: is no regular file; the template is read more than once", path);
    lb_prompt_template *t;
    lb_status status = lb_prompt_template_read(path, &t, error);
    if (status != LB_STATUS_OK)
        return status;
    lb_sha256 hash;
    char hex[LB_SHA256_HEX];
    const char *text = lb_prompt_template_text(t);
    lb_sha256_init(&hash);
    lb_sha256_add(&hash, text, strlen(text));
    lb_sha256_hex(&hash, hex);
    lb_settings_add(settings, LB_SETTING_FREE, "prompt", "--prompt", "%s", path ? path : "(built in)");
    lb_settings_add(settings, LB_SETTING_BINDS_HIDDEN, "prompt_sha256", "the prompt template (--prompt)", "%s", hex);
    lb_prompt_template_free(t);
    return LB_STATUS_OK;
}

static lb_status add_detector(lb_settings *settings, const lb_engine_params *e, lb_error *error) {
    lb_fingerprint labels = {.sha256 = "(built in)"};
    lb_settings_add(settings, LB_SETTING_BINDS, "detect", "the detector (--detector)", "%s",
                    e->detector_path ? "there" : "none");
    if (!e->detector_path)
        return LB_STATUS_OK;
    lb_status status = e->labels_path ? lb_fingerprint_content(e->labels_path, NULL, &labels, error) : LB_STATUS_OK;
    lb_settings_add(settings, LB_SETTING_FREE, "detector", "--detector", "%s", e->detector_path);
    lb_settings_add(settings, LB_SETTING_FREE, "labels", "--labels", "%s",
                    e->labels_path ? e->labels_path : "(built in)");
    lb_settings_add(settings, LB_SETTING_BINDS_HIDDEN, "labels_sha256", "the list of labels (--labels)", "%s",
                    labels.sha256);
    lb_settings_add(settings, LB_SETTING_BINDS, "box_threshold", "--box-threshold", "%.9g", (double)e->box_threshold);
    lb_settings_add(settings, LB_SETTING_BINDS, "text_threshold", "--text-threshold", "%.9g",
                    (double)e->text_threshold);
    lb_settings_add(settings, LB_SETTING_BINDS, "max_detections", "--max-detections", "%d", e->max_detections);
    lb_settings_add(settings, LB_SETTING_BINDS, "detector_batch", "--detector-batch", "%d", e->detector_batch);
    return status;
}

static void add_second(lb_settings *settings, const char *name, const char *what, double seconds) {
    if (isfinite(seconds))
        lb_settings_add(settings, LB_SETTING_BINDS, name, what, "%.17g", seconds);
    else
        lb_settings_add(settings, LB_SETTING_BINDS, name, what, "none");
}

lb_status lb_settings_collect(lb_settings *settings, const lb_run_params *params, const lb_dataset *dataset,
                              lb_error *error) {
    const lb_engine_params *e = &params->child.engine;
    const lb_frames_params *f = &params->clip.frames;
    lb_settings_add(settings, LB_SETTING_NOTED, "lowbeam", "lowbeam", "%s", LOWBEAM_VERSION);
    lb_settings_add(settings, LB_SETTING_NOTED, "library", "the library", "%s", lb_vlm_library());
    lb_settings_add(settings, LB_SETTING_FREE, "questions", "the questions file", "%s", params->questions_path);
    add_questions(settings, dataset);
    lb_settings_add(settings, LB_SETTING_FREE, "videos", "--videos", "%s", params->videos ? params->videos : "");
    lb_settings_add(settings, LB_SETTING_FREE, "model", "--model", "%s", e->vlm.model_path);
    lb_settings_add(settings, LB_SETTING_FREE, "mmproj", "--mmproj", "%s", e->vlm.mmproj_path);
    lb_status status = add_template(settings, e->prompt_path, error);
    if (status != LB_STATUS_OK)
        return status;
    lb_settings_add(settings, LB_SETTING_BINDS_HIDDEN, "system", "the system message (--system)", "%s",
                    e->system ? e->system : lb_system_message);
    lb_settings_add(settings, LB_SETTING_BINDS, "num_frames", "--num-frames", "%d", f->n_frames);
    add_second(settings, "from", "--from", f->bounded ? f->from_s : -INFINITY);
    add_second(settings, "to", "--to", f->bounded ? f->to_s : INFINITY);
    add_second(settings, "deadline", "--deadline", params->deadline_s > 0 ? params->deadline_s : INFINITY);
    lb_settings_add(settings, LB_SETTING_BINDS, "max_tiles", "--max-tiles", "%d", params->clip.max_tiles);
    lb_settings_add(settings, LB_SETTING_BINDS, "max_new_tokens", "--max-new-tokens", "%d", e->max_new_tokens);
    lb_settings_add(settings, LB_SETTING_BINDS, "answer", "--answer", "%s", e->letter_only ? "letter" : "generate");
    lb_settings_add(settings, LB_SETTING_BINDS, "exact", "--exact", "%s", e->vlm.exact ? "yes" : "no");
    if ((status = add_detector(settings, e, error)) != LB_STATUS_OK)
        return status;
    /* these change the order of sums only, and with it the last digits */
    lb_settings_add(settings, LB_SETTING_BINDS, "reuse", "reuse (--no-reuse)", "%s", e->reuse ? "yes" : "no");
    lb_settings_add(settings, LB_SETTING_BINDS, "batch", "--batch", "%d", e->vlm.n_parallel);
    lb_settings_add(settings, LB_SETTING_BINDS, "ubatch", "--ubatch", "%d", e->vlm.n_ubatch);
    lb_settings_add(settings, LB_SETTING_BINDS, "tile_batch", "--tile-batch", "%d", e->vlm.tile_batch);
    return settings->out_of_memory ? lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the run's settings")
                                   : LB_STATUS_OK;
}

lb_status lb_settings_journal(const lb_settings *settings, lb_sources *sources, const char *path, lb_journal **journal,
                              lb_error *error) {
    size_t n_sources;
    const lb_journal_source *list = lb_sources_list(sources, &n_sources);
    const char *pairs[2 * LB_SETTINGS_MAX + 1];
    for (size_t i = 0; i < settings->n; i++) {
        pairs[2 * i] = settings->entry[i].name;
        pairs[2 * i + 1] = settings->entry[i].value;
    }
    pairs[2 * settings->n] = NULL;
    return lb_journal_create(path, pairs, list, n_sources, journal, error);
}

lb_status lb_settings_compare(const lb_settings *settings, lb_journal *journal, const char *path,
                              void (*warn)(const char *message, void *user), void *user, lb_error *error) {
    char differing[1200] = "", one[400];
    for (size_t i = 0; i < settings->n; i++) {
        const lb_setting *s = &settings->entry[i];
        if (s->rule == LB_SETTING_FREE)
            continue;
        char *before;
        lb_status status = lb_journal_setting(journal, s->name, &before, error);
        if (status != LB_STATUS_OK)
            return status;
        const bool same = before && strcmp(before, s->value) == 0;
        if (s->rule == LB_SETTING_BINDS_HIDDEN)
            snprintf(one, sizeof one, "%s is another one", s->what);
        else
            snprintf(one, sizeof one, "%s was %.150s, is %.150s", s->what, before ? before : "not there", s->value);
        free(before);
        if (same)
            continue;
        size_t used = strlen(differing);
        if (s->rule != LB_SETTING_NOTED) {
            snprintf(differing + used, sizeof differing - used, "%s%s", used ? "; " : "", one);
        } else if (warn) {
            char message[600];
            snprintf(message, sizeof message, "resuming, but %s: answers can differ in their last digits", one);
            warn(message, user);
        }
    }
    if (!differing[0])
        return LB_STATUS_OK;
    return lb_error_set(error, LB_STATUS_REFUSED,
                        "%s: not resumed, since its answers would be of two kinds: %s; give what the run began with, "
                        "or name another --out",
                        path, differing);
}
