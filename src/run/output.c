#include "run/output.h"

#include "base/error.h"
#include "base/file.h"
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

bool lb_output_is_file(const char *out) {
    struct stat st;
    return ends_with(out, ".csv") && !(stat(out, &st) == 0 && S_ISDIR(st.st_mode));
}

static void put_db_path(char *db, const char *csv, int length) {
    memcpy(db, csv, (size_t)length + 1);
    memcpy(db + length - 4, ".db", 4);
}

lb_status lb_output_paths(const char *out, const char *model_path, char *csv, char *db, size_t n, lb_error *error) {
    int length;
    struct stat st;
    if (lb_output_is_file(out)) {
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
        /* another run that began in the same second, or before the clock was set back */
        for (int i = 2; length > 0 && (size_t)length < n && i < 1000; i++) {
            put_db_path(db, csv, length);
            if (lstat(csv, &st) != 0 && lstat(db, &st) != 0)
                break;
            length = snprintf(csv, n, "%s/submission_%s_%s_%d.csv", out, model, when, i);
        }
    }
    if (length < 0 || (size_t)length >= n)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--out %.1000s: the path is too long", out);
    put_db_path(db, csv, length);
    return LB_STATUS_OK;
}

lb_status lb_output_check(const char *db_path, lb_error *error) {
    lb_status status = lb_journal_check_new(db_path, error);
    if (status != LB_STATUS_OK)
        return status;
    const char *slash = strrchr(db_path, '/');
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - db_path) + 1 : 1, slash ? db_path : ".");
    if (access(folder, W_OK | X_OK) != 0)
        return lb_error_set(error, errno == ENOENT ? LB_STATUS_NOT_FOUND : LB_STATUS_IO,
                            "%s: the CSV cannot be written there: %s", folder, strerror(errno));
    return LB_STATUS_OK;
}
