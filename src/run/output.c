#include "run/output.h"

#include "base/error.h"
#include "run/npy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

lb_status lb_output_paths(const char *out, const char *model_path, char *csv, char *db, size_t n, lb_error *error) {
    int length;
    struct stat st;
    if (ends_with(out, ".csv") && !(stat(out, &st) == 0 && S_ISDIR(st.st_mode))) {
        length = snprintf(csv, n, "%s", out);
    } else {
        lb_status status = lb_folder_make(out, error);
        if (status != LB_STATUS_OK)
            return status;
        const char *name = strrchr(model_path, '/');
        char model[128], when[32];
        lb_name_clean(name ? name + 1 : model_path, model, sizeof model);
        if (ends_with(model, ".gguf"))
            model[strlen(model) - 5] = 0;
        time_t now = time(NULL);
        struct tm local;
        strftime(when, sizeof when, "%Y%m%d_%H%M%S", localtime_r(&now, &local));
        length = snprintf(csv, n, "%s/submission_%s_%s.csv", out, model, when);
    }
    if (length < 0 || (size_t)length >= n)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--out %s: the path is too long", out);
    memcpy(db, csv, (size_t)length + 1);
    memcpy(db + length - 4, ".db", 4);
    return LB_STATUS_OK;
}

lb_status lb_output_check(const char *db_path, lb_error *error) {
    struct stat st;
    if (lstat(db_path, &st) == 0)
        return lb_error_set(error, LB_STATUS_REFUSED,
                            "%s: is there already, the journal of another run; remove it, or name another --out",
                            db_path);
    const char *slash = strrchr(db_path, '/');
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - db_path) + 1 : 1, slash ? db_path : ".");
    if (access(folder, W_OK | X_OK) != 0)
        return lb_error_set(error, errno == ENOENT ? LB_STATUS_NOT_FOUND : LB_STATUS_IO,
                            "%s: the CSV cannot be written there: %s", folder, strerror(errno));
    return LB_STATUS_OK;
}

lb_status lb_output_journal(const lb_run_params *params, const char *db_path, lb_journal **journal, lb_error *error) {
    const lb_engine_params *e = &params->child.engine;
    char frames[32], tiles[32], tokens[32], box[32], text[32], detections[32];
    snprintf(frames, sizeof frames, "%d", params->clip.frames.n_frames);
    snprintf(tiles, sizeof tiles, "%d", params->clip.max_tiles);
    snprintf(tokens, sizeof tokens, "%d", e->max_new_tokens);
    snprintf(box, sizeof box, "%.9g", (double)e->box_threshold);
    snprintf(text, sizeof text, "%.9g", (double)e->text_threshold);
    snprintf(detections, sizeof detections, "%d", e->max_detections);
    const char *settings[] = {"lowbeam",
                              LOWBEAM_VERSION,
                              "questions",
                              params->questions_path,
                              "model",
                              e->vlm.model_path,
                              "mmproj",
                              e->vlm.mmproj_path,
                              "prompt",
                              e->prompt_path ? e->prompt_path : "(built in)",
                              "num_frames",
                              frames,
                              "max_tiles",
                              tiles,
                              "max_new_tokens",
                              tokens,
                              "answer",
                              e->letter_only ? "letter" : "generate",
                              "reuse",
                              e->reuse ? "yes" : "no",
                              "exact",
                              e->vlm.exact ? "yes" : "no",
                              "detector",
                              e->detector_path ? e->detector_path : "(none)",
                              "labels",
                              e->labels_path ? e->labels_path : "(built in)",
                              "box_threshold",
                              box,
                              "text_threshold",
                              text,
                              "max_detections",
                              detections,
                              NULL};
    return lb_journal_create(db_path, settings, journal, error);
}
