#include "run/lanes.h"
#include "run/run_internal.h"

#include "base/cond.h"
#include "base/error.h"
#include "base/file.h"
#include "base/time.h"
#include "run/output.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

lb_run_params lb_run_default_params(void) {
    return (lb_run_params){
        .out = ".",
        .cache_dir_limit = (size_t)20 << 30,
        .clip = {.frames = lb_frames_default_params(), .max_tiles = 1},
        .child = {.engine = lb_engine_default_params()},
    };
}

static void begin(lb_run *r, const lb_run_params *params, const lb_run_observer *observer, lb_run_result *result) {
    *r = (lb_run){.params = params, .result = result, .n_lanes = 1};
    if (observer)
        r->observer = *observer;
    pthread_mutex_init(&r->mutex, NULL);
    lb_cond_init(&r->changed);
    lb_lane_init(r, 0);
}

static void end(lb_run *r) {
    pthread_mutex_destroy(&r->mutex);
    pthread_cond_destroy(&r->changed);
}

static lb_status answer_all(lb_run *r, lb_error *error) {
    const lb_dataset *dataset = r->dataset;
    for (size_t i = 0; i < dataset->n_questions; i++)
        if (dataset->question[i].fault && !r->resume.stored[i])
            lb_run_store_failure(&r->lane[0], i, dataset->question[i].fault);
    lb_status status = lb_queue_start(r, error);
    if (status == LB_STATUS_OK) {
        lb_lanes_begin(r);
        lb_lanes_work(&r->lane[0]);
        lb_lanes_rest(r);
    }
    if (status == LB_STATUS_OK && r->ended) {
        status = r->journal_error.status;
        if (error)
            *error = r->journal_error;
    }
    lb_queue_close(r);
    return status;
}

static lb_status read_questions(lb_run *r, lb_error *error) {
    lb_fault_list faults = {0};
    lb_dataset_params params = {.max_questions = r->params->max_questions};
    lb_status status = lb_dataset_read(r->params->questions_path, &params, &r->dataset, &faults, error);
    for (size_t i = 0; i < faults.n; i++)
        if (r->observer.fault)
            r->observer.fault(faults.fault[i].message, r->observer.user);
    if (status == LB_STATUS_OK && faults.n > 0 && !r->params->keep_going)
        status = lb_error_set(error, LB_STATUS_FORMAT,
                              "%s: %zu fault%s; nothing was asked. --keep-going asks the other questions",
                              r->params->questions_path, faults.n, faults.n == 1 ? "" : "s");
    if (status == LB_STATUS_OK && r->dataset->n_questions == 0)
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: no questions in it", r->params->questions_path);
    lb_fault_list_free(&faults);
    return status;
}

/* One wrong option, rather than every video of the file missing. */
static lb_status check_videos(const char *videos, lb_error *error) {
    struct stat st;
    if (videos && stat(videos, &st) != 0)
        return lb_error_set(error, LB_STATUS_NOT_FOUND, "--videos %s: %s", videos, strerror(errno));
    if (videos && !S_ISDIR(st.st_mode))
        return lb_error_set(error, LB_STATUS_NOT_FOUND, "--videos %s: is no folder; video_path starts there", videos);
    return LB_STATUS_OK;
}

/* The number of engines into a plan that is text and JSON; what there is no memory for stays without. */
static void add_engines(lb_child_state *plan, int n) {
    json_t *root = plan->plan_json ? json_loads(plan->plan_json, 0, NULL) : NULL;
    char *text = NULL, *json = NULL;
    if (root && json_object_set_new(root, "engines", json_integer(n)) == 0)
        json = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (plan->plan_text && n > 1 &&
        asprintf(&text, "%sEngines: %d side by side, each with such a plan for devices of its own\n", plan->plan_text,
                 n) < 0)
        text = NULL;
    if (json) {
        free(plan->plan_json);
        plan->plan_json = json;
    }
    if (text) {
        free(plan->plan_text);
        plan->plan_text = text;
    }
}

lb_status lb_run_plan(const lb_run_params *params, const lb_run_observer *observer, char **text, char **json,
                      lb_error *error) {
    *text = *json = NULL;
    lb_run_result result = {0};
    lb_run r;
    lb_child_state plan = {0};
    int n_engines = 1;
    begin(&r, params, observer, &result);
    lb_status status = read_questions(&r, error);
    if (status == LB_STATUS_OK)
        status = check_videos(params->videos, error);
    if (status == LB_STATUS_OK)
        status = lb_run_find_work(&r, error);
    if (status == LB_STATUS_OK)
        status = lb_child_plan(&r.lane[0].child_params, params->cancel, &plan, error);
    if (status == LB_STATUS_OK)
        status = lb_lanes_count(&r, &plan, r.dataset->n_groups, &n_engines, error);
    if (status == LB_STATUS_OK)
        add_engines(&plan, n_engines);
    *text = plan.plan_text;
    *json = plan.plan_json;
    lb_work_free(r.work);
    lb_dataset_free(r.dataset);
    end(&r);
    return status;
}

lb_status lb_run_answer(const lb_run_params *params, const lb_run_observer *observer, lb_run_result *result,
                        lb_error *error) {
    *result = (lb_run_result){0};
    lb_run r;
    begin(&r, params, observer, result);
    lb_status status = lb_journal_check_columns(params->columns, error);
    if (status == LB_STATUS_OK)
        status = read_questions(&r, error);
    if (status == LB_STATUS_OK) {
        result->n_questions = r.dataset->n_questions;
        status = lb_output_paths(params->out, params->child.engine.vlm.model_path, result->csv_path, result->db_path,
                                 sizeof result->csv_path, error);
    }
    if (status == LB_STATUS_OK && params->child.trace)
        status = lb_ledger_trace(params->child.trace, error);
    if (status == LB_STATUS_OK)
        status = check_videos(params->videos, error);
    if (status == LB_STATUS_OK)
        status = lb_settings_collect(&r.settings, params, r.dataset, error);
    if (status == LB_STATUS_OK)
        status = lb_run_look_at_weights(&r, error);
    if (status == LB_STATUS_OK)
        status = lb_run_resume(&r, error);
    if (status == LB_STATUS_OK)
        status = lb_run_load_stored(&r, error);
    if (status == LB_STATUS_OK && params->dump)
        status = lb_dump_names_make(params->dump, r.dataset, &r.names, error);
    if (status == LB_STATUS_OK && params->dump)
        status = lb_folder_make(params->dump, error); /* now, rather than a failure for each question */
    /* the models before the journal: a run that cannot begin leaves no file behind */
    if (status == LB_STATUS_OK)
        status = lb_queue_open(&r, error);
    if (status == LB_STATUS_OK && r.queue.n > 0)
        status = lb_run_start_engine(&r, error);
    if (status == LB_STATUS_OK && r.queue.n > 0 && params->child.engine.cache_dir)
        status = lb_sights_open(params, lb_child_get_state(r.lane[0].child), r.sources, &r.sights, error);
    if (status == LB_STATUS_OK)
        status = lb_run_begin_journal(&r, error);
    if (status == LB_STATUS_OK) {
        r.start_s = lb_now_s();
        lb_sources_hash(r.sources);
        status = answer_all(&r, error);
        result->seconds = lb_now_s() - r.start_s;
        result->interrupted = lb_run_cancelled(&r) && result->n_answered < result->n_questions;
        for (int i = r.n_lanes - 1; i >= 0; i--)
            if (r.lane[i].child)
                result->engine = *lb_child_get_state(r.lane[i].child);
        if (status == LB_STATUS_OK)
            lb_lanes_tell_memory(&r);
        if (status == LB_STATUS_OK)
            status = lb_sources_finish(r.sources, params->cancel, r.journal, result->db_path, error);
        if (status == LB_STATUS_OK)
            status = lb_journal_write_csv(r.journal, result->csv_path, params->columns, error);
        if (status != LB_STATUS_OK && result->n_answered > 0 && error)
            lb_error_add(error, "; %zu of %zu answers are stored: --resume goes on from there", result->n_answered,
                         result->n_questions);
    }
    lb_sights_close(r.sights);
    lb_sources_free(r.sources);
    lb_journal_close(r.journal);
    lb_lanes_end(&r);
    result->engine.plan_text = result->engine.plan_json = result->engine.adapted = NULL; /* went with the child */
    lb_queue_close(&r);
    lb_work_free(r.work);
    lb_resume_free(&r.resume);
    lb_settings_free(&r.settings);
    lb_dump_names_free(&r.names);
    lb_dataset_free(r.dataset);
    end(&r);
    (void)lb_ledger_trace(NULL, NULL);
    return status;
}
