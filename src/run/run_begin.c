/* How a run begins, or goes on: its journal, what it is bound to, and its first engine child. */
#include "run/run_internal.h"

#include "base/error.h"
#include "run/lanes.h"
#include "run/output.h"
#include "vlm/encoder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The files that the answers come from; those that are missing the engine child tells of. */
lb_status lb_run_look_at_weights(lb_run *r, lb_error *error) {
    const lb_vlm_params *vlm = &r->params->child.engine.vlm;
    r->sources = lb_sources_new();
    if (!r->sources)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    lb_status status = lb_sources_add(r->sources, "model", vlm->model_path, error);
    if (status == LB_STATUS_OK)
        status = lb_sources_add(r->sources, "mmproj", vlm->mmproj_path, error);
    if (status == LB_STATUS_OK)
        status = lb_sources_add(r->sources, "detector", r->params->child.engine.detector_path, error);
    return status;
}

/* Opens the journal of the run to go on with, where there is one, and sees that its answers and those to come belong
 * together. */
lb_status lb_run_resume(lb_run *r, lb_error *error) {
    const lb_run_params *p = r->params;
    const char *path = r->result->db_path;
    lb_status status = LB_STATUS_OK;
    struct stat st;
    if (!p->resume)
        return lb_output_check(path, error);
    if (lstat(path, &st) != 0 && errno == ENOENT) {
        char message[PATH_MAX + 64];
        snprintf(message, sizeof message, "%s: no journal is there to resume; the run begins", path);
        lb_run_warn(r, message);
        return lb_output_check(path, error);
    }
    status = lb_journal_open(path, &r->journal, error);
    if (status == LB_STATUS_OK)
        status = lb_settings_compare(&r->settings, r->journal, path, r->observer.warning, r->observer.user, error);
    if (status == LB_STATUS_OK)
        status = lb_sources_compare(r->sources, r->journal, path, p->cancel, error);
    return status;
}

lb_status lb_run_load_stored(lb_run *r, lb_error *error) {
    const lb_run_params *p = r->params;
    lb_status status = lb_resume_load(&r->resume, r->journal, r->dataset, p->keep_failed, r->result, error);
    if (status != LB_STATUS_OK || !r->journal)
        return status;
    status = lb_resume_check_videos(&r->resume, r->journal, p, r->dataset, error);
    r->result->n_resumed = r->resume.n_stored;
    if (status == LB_STATUS_OK && r->observer.resumed)
        r->observer.resumed(r->resume.n_stored, r->resume.n_again, r->dataset->n_questions, r->observer.user);
    return status;
}

lb_status lb_run_find_work(lb_run *r, lb_error *error) {
    if (!r->params->planned)
        return LB_STATUS_OK;
    /* what is wrong with a model file the engine child tells, which looks at the language model first */
    lb_encoder_hparams hparams;
    if (lb_encoder_read_hparams(r->params->child.engine.vlm.mmproj_path, &hparams, NULL) != LB_STATUS_OK)
        hparams.image_size = 448;
    lb_status status = lb_work_find(r->dataset, r->params, hparams.image_size, &r->work, error);
    if (status == LB_STATUS_OK)
        r->lane[0].child_params.engine.work = lb_work_get(r->work);
    return status;
}

/* A device can be broken, or full of what does not say so, while the others would do: which one that is only the user
 * can tell. */
static void name_other_devices(const lb_lane *lane, lb_error *error) {
    const char *names = lane->order.names, *others = strchr(names, ',');
    if (error->status == LB_STATUS_CHILD_DIED && others)
        lb_error_add(error, "; if it is %.*s, --device %s leaves that out", (int)(others - names), names, others + 1);
}

lb_status lb_run_start_engine(lb_run *r, lb_error *error) {
    if (r->observer.loading)
        r->observer.loading(r->observer.user);
    lb_lane *lane = &r->lane[0];
    lb_status status = lb_run_find_work(r, error);
    if (status == LB_STATUS_OK)
        status = lb_lane_open(lane, r->params->cancel, error);
    /* somebody else took memory while the models were loaded, or more was needed than was thought */
    while (status != LB_STATUS_OK && lb_run_is_memory_death(error) && lb_lane_can_retry(lane)) {
        lb_error_context(error, "starting another engine with a smaller plan");
        lb_run_warn(r, error->message);
        lb_lanes_undo(r);
        lane->child_params.engine.n_retries++;
        status = lb_lane_open(lane, r->params->cancel, error);
    }
    if (status != LB_STATUS_OK) {
        lb_lanes_undo(r);
        name_other_devices(lane, error);
        return status;
    }
    r->result->n_engines = 1;
    r->result->engine = *lb_child_get_state(lane->child);
    if (r->observer.loaded)
        r->observer.loaded(&r->result->engine, r->observer.user);
    status = lb_lanes_deal(r, &r->result->engine, error);
    if (status != LB_STATUS_OK)
        return status;
    if (!r->journal) {
        lb_settings_add_device(&r->settings, &r->result->engine);
        return LB_STATUS_OK;
    }
    lb_settings device = {0};
    lb_settings_add_device(&device, &r->result->engine);
    status = lb_settings_compare(&device, r->journal, r->result->db_path, r->observer.warning, r->observer.user, error);
    lb_settings_free(&device);
    return status;
}

/* A new one, unless there is one to go on with. Another run may have begun in the same folder in the same second, and
 * have the name: then the next one. */
lb_status lb_run_begin_journal(lb_run *r, lb_error *error) {
    lb_run_result *result = r->result;
    if (r->journal)
        return LB_STATUS_OK;
    lb_status status = lb_settings_journal(&r->settings, r->sources, result->db_path, &r->journal, error);
    for (int i = 0; status == LB_STATUS_REFUSED && !lb_output_is_file(r->params->out) && i < 100; i++) {
        status = lb_output_paths(r->params->out, r->params->child.engine.vlm.model_path, result->csv_path,
                                 result->db_path, sizeof result->csv_path, error);
        if (status == LB_STATUS_OK)
            status = lb_settings_journal(&r->settings, r->sources, result->db_path, &r->journal, error);
    }
    return status;
}
