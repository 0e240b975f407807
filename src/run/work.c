#include "run/work.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "image/tiles.h"
#include "run/paths.h"

#include <libgen.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LONGEST_MAX =
        64, /* questions whose tokens are counted: the longest in bytes, which the longest in tokens is among */
    THREADS_MAX = 16
};
#define SURVEY_S 2.0 /* for all headers together */

struct lb_work {
    lb_engine_work work;
    lb_engine_question question[LONGEST_MAX];
    const char *choice[LONGEST_MAX][LB_CHOICES_MAX];
};

typedef struct survey {
    const lb_dataset *dataset;
    const lb_run_params *params;
    const char *base;
    int tile_size;
    double until_s;
    atomic_size_t next, n_seen;
    pthread_mutex_t mutex;
    int tiles_per_frame;
    size_t frame_bytes;
    int width, height; /* of the frame whose picture for the detector is the largest, as far as can be told: the one
                          nearest to the sides' limits */
    double picture;
} survey;

/* Pixels of the detector's picture for a frame: shortest edge s, longest at most l, as shares of s * s. */
static double picture_share(int width, int height) {
    const double ratio = width > height ? (double)width / height : (double)height / width;
    const double most = 1333.0 / 800.0;
    return ratio <= most ? ratio : most * most / ratio;
}

static void see(survey *s, size_t i) {
    char *path = NULL;
    lb_error ignored = {0};
    lb_frames *frames = NULL;
    lb_tile_grid grid;
    if (lb_video_path(s->base, s->dataset->group[i].video_path, s->params->allow_outside, &path, &ignored) !=
            LB_STATUS_OK ||
        lb_frames_probe(path, &s->params->clip.frames, &frames, &ignored) != LB_STATUS_OK) {
        free(path);
        return; /* it fails for itself later */
    }
    free(path);
    if (lb_tile_grid_choose(frames->width, frames->height, s->params->clip.max_tiles, s->tile_size, &grid, &ignored) ==
        LB_STATUS_OK) {
        pthread_mutex_lock(&s->mutex);
        const size_t bytes = (size_t)frames->width * (size_t)frames->height * 3;
        const double picture = picture_share(frames->width, frames->height);
        if (grid.n_tiles > s->tiles_per_frame)
            s->tiles_per_frame = grid.n_tiles;
        if (bytes > s->frame_bytes)
            s->frame_bytes = bytes;
        if (picture > s->picture) {
            s->picture = picture;
            s->width = frames->width;
            s->height = frames->height;
        }
        pthread_mutex_unlock(&s->mutex);
    }
    lb_frames_free(frames);
}

static void *look(void *user) {
    survey *s = user;
    size_t i;
    while ((i = atomic_fetch_add(&s->next, 1)) < s->dataset->n_groups && lb_now_s() < s->until_s) {
        see(s, i);
        atomic_fetch_add(&s->n_seen, 1);
    }
    return NULL;
}

static void survey_videos(survey *s) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int n_threads = cores < THREADS_MAX ? (int)cores : THREADS_MAX, n = 0;
    if ((size_t)n_threads > s->dataset->n_groups)
        n_threads = (int)s->dataset->n_groups;
    pthread_t thread[THREADS_MAX];
    while (n < n_threads - 1 && pthread_create(&thread[n], NULL, look, s) == 0)
        n++;
    look(s);
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
}

static size_t text_bytes(const lb_question *q) {
    size_t n = strlen(q->text);
    for (int k = 0; k < q->n_choices; k++)
        n += strlen(q->choice[k]) + 4;
    return n;
}

static void take_longest(const lb_dataset *dataset, lb_work *work) {
    size_t bytes[LONGEST_MAX];
    int n = 0;
    for (size_t i = 0; i < dataset->n_questions; i++) {
        const lb_question *q = &dataset->question[i];
        if (q->fault)
            continue;
        const size_t own = text_bytes(q);
        int at = n;
        while (at > 0 && bytes[at - 1] < own)
            at--;
        if (at == LONGEST_MAX)
            continue;
        if (n < LONGEST_MAX)
            n++;
        for (int k = n - 1; k > at; k--) {
            bytes[k] = bytes[k - 1];
            work->question[k] = work->question[k - 1];
            memcpy(work->choice[k], work->choice[k - 1], sizeof work->choice[k]);
        }
        bytes[at] = own;
        work->question[at] = (lb_engine_question){.text = q->text, .n_choices = q->n_choices};
        for (int k = 0; k < q->n_choices; k++)
            work->choice[at][k] = q->choice[k];
    }
    for (int k = 0; k < n; k++)
        work->question[k].choices = work->choice[k];
    work->work.longest = work->question;
    work->work.n_longest = n;
}

lb_status lb_work_find(const lb_dataset *dataset, const lb_run_params *params, int tile_size, lb_work **out,
                       lb_error *error) {
    *out = NULL;
    lb_work *work = calloc(1, sizeof *work);
    char *questions_path = strdup(params->questions_path);
    if (!work || !questions_path) {
        free(work);
        free(questions_path);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the plan");
    }
    survey s = {.dataset = dataset,
                .params = params,
                .base = params->videos ? params->videos : dirname(questions_path),
                .tile_size = tile_size,
                .until_s = lb_now_s() + SURVEY_S,
                .mutex = PTHREAD_MUTEX_INITIALIZER};
    survey_videos(&s);
    if (s.n_seen < dataset->n_groups) { /* the rest may be as large as the settings allow */
        const int most = params->clip.max_tiles > 1 ? params->clip.max_tiles + 1 : 1;
        lb_log(LB_LOG_INFO, "memory", "videos=%zu headers_read=%zu, the others counted as the largest",
               dataset->n_groups, (size_t)s.n_seen);
        s.tiles_per_frame = most;
        s.width = s.height = 0;
    }
    work->work = (lb_engine_work){.n_frames = params->clip.frames.n_frames,
                                  .tiles_per_frame = s.tiles_per_frame > 0 ? s.tiles_per_frame : 1,
                                  .picture_width = s.width,
                                  .picture_height = s.height,
                                  .frame_bytes = s.frame_bytes};
    take_longest(dataset, work);
    free(questions_path);
    *out = work;
    return LB_STATUS_OK;
}

const lb_engine_work *lb_work_get(const lb_work *work) {
    return &work->work;
}

void lb_work_free(lb_work *work) {
    free(work);
}
