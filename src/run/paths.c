#include "run/paths.h"

#include "base/error.h"
#include "run/npy.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_parent_part(const char *path) {
    for (const char *at = path; *at;) {
        size_t n = strcspn(at, "/");
        if (n == 2 && at[0] == '.' && at[1] == '.')
            return true;
        at += n + (at[n] == '/');
    }
    return false;
}

lb_status lb_video_path(const char *base, const char *video_path, bool allow_outside, char **path, lb_error *error) {
    *path = NULL;
    bool absolute = video_path[0] == '/';
    if (!allow_outside && (absolute || has_parent_part(video_path)))
        return lb_error_set(error, LB_STATUS_REFUSED,
                            "video_path %.1500s leaves the video folder; --allow-outside permits that", video_path);
    char *joined = NULL;
    if ((absolute ? asprintf(&joined, "%s", video_path) : asprintf(&joined, "%s/%s", base, video_path)) < 0)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "video_path %s: no memory", video_path);
    char real[PATH_MAX], real_base[PATH_MAX];
    lb_status status = LB_STATUS_OK;
    if (!realpath(joined, real)) {
        int cause = errno;
        status = lb_error_set(error, cause == ENOENT || cause == ENOTDIR ? LB_STATUS_NOT_FOUND : LB_STATUS_IO, "%s",
                              strerror(cause));
        lb_error_context(error, "%s", joined);
    } else if (!allow_outside) {
        size_t n = realpath(base, real_base) ? strlen(real_base) : 0;
        bool root = n == 1;
        if (n == 0 || strncmp(real, real_base, n) != 0 || (!root && real[n] != '/' && real[n] != 0))
            status =
                lb_error_set(error, LB_STATUS_REFUSED,
                             "video_path %.1500s leads outside the video folder by a symbolic link; --allow-outside "
                             "permits that",
                             video_path);
    }
    if (status != LB_STATUS_OK) {
        free(joined);
        return status;
    }
    *path = joined;
    return LB_STATUS_OK;
}

typedef struct numbered {
    char *name;
    size_t place;
} numbered;

static int by_name(const void *a, const void *b) {
    const numbered *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : (x->place > y->place) - (x->place < y->place);
}

static int find_name(const void *key, const void *element) {
    return strcmp(key, ((const numbered *)element)->name);
}

/* Videos and questions share one folder, so one space of names: videos first, then questions. A numbered name may meet
 * another one's own name ("a-2"): then it counts on. */
static lb_status number(numbered *all, size_t n, const char *dir, char **out, lb_error *error) {
    qsort(all, n, sizeof *all, by_name);
    size_t count = 1;
    for (size_t i = 0; i < n; i++) {
        count = i > 0 && strcmp(all[i].name, all[i - 1].name) == 0 ? count + 1 : 1;
        int written;
        if (count == 1) {
            written = asprintf(&out[all[i].place], "%s/%s", dir, all[i].name);
        } else {
            char candidate[PATH_MAX];
            snprintf(candidate, sizeof candidate, "%.4000s-%zu", all[i].name, count);
            while (bsearch(candidate, all, n, sizeof *all, find_name))
                snprintf(candidate, sizeof candidate, "%.4000s-%zu", all[i].name, ++count);
            written = asprintf(&out[all[i].place], "%s/%s", dir, candidate);
        }
        if (written < 0) {
            out[all[i].place] = NULL;
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the names of --dump");
        }
    }
    return LB_STATUS_OK;
}

lb_status lb_dump_names_make(const char *dir, const lb_dataset *dataset, lb_dump_names *names, lb_error *error) {
    enum { NAME_ROOM = 256 }; /* what a file system takes, less room for the number */
    *names = (lb_dump_names){0};
    if (!dir[0]) /* an unset variable, most likely; "" + "/name" would be the root folder */
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--dump: the folder's name is empty");
    size_t n_videos = dataset->n_groups, n = n_videos + dataset->n_questions;
    *names = (lb_dump_names){.n_videos = n_videos, .n_questions = dataset->n_questions};
    numbered *all = calloc(n + 1, sizeof *all);
    char **out = calloc(n + 1, sizeof *out);
    lb_status status = all && out ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    for (size_t i = 0; i < n && status == LB_STATUS_OK; i++) {
        char clean[NAME_ROOM - 12];
        lb_name_clean(i < n_videos ? dataset->group[i].video_path : dataset->question[i - n_videos].id, clean,
                      sizeof clean);
        if (clean[0] == 0 || strcmp(clean, ".") == 0 || strcmp(clean, "..") == 0)
            snprintf(clean, sizeof clean, "_");
        all[i] = (numbered){strdup(clean), i};
        if (!all[i].name)
            status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    }
    if (status == LB_STATUS_OK)
        status = number(all, n, dir, out, error);
    for (size_t i = 0; all && i < n; i++)
        free(all[i].name);
    free(all);
    names->video = out;
    names->question = out ? out + n_videos : NULL;
    if (status != LB_STATUS_OK)
        lb_dump_names_free(names);
    return status;
}

void lb_dump_names_free(lb_dump_names *names) {
    for (size_t i = 0; names->video && i < names->n_videos + names->n_questions; i++)
        free(names->video[i]);
    free(names->video);
    *names = (lb_dump_names){0};
}
