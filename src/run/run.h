/* The answer run: questions file in, journal and CSV out. Joins all stages; what `lowbeam answer` is.
 *
 *     lb_run_params params = lb_run_default_params();
 *     params.questions_path = "questions.json";
 *     params.child.engine.vlm.model_path = "llm.gguf";
 *     params.child.engine.vlm.mmproj_path = "mmproj.gguf";
 *     lb_run_result result;
 *     if (lb_run_answer(&params, &observer, &result, &error) != LB_STATUS_OK) ...     // nothing could be done
 *     printf("%s\n", result.csv_path);
 */
#ifndef LB_RUN_RUN_H
#define LB_RUN_RUN_H

#include "dataset/dataset.h"
#include "journal/journal.h"
#include "run/child.h"

#include <limits.h>
#include <stdatomic.h>

typedef struct lb_run_params {
    const char *questions_path;
    const char *videos;      /* base folder; NULL: the questions file's */
    const char *out;         /* folder, or a file ending in .csv; default "." */
    const char *columns;     /* of the CSV; NULL: all */
    const char *dump;        /* folder for --dump; NULL: none */
    size_t max_questions;    /* 0: all */
    bool keep_going;         /* ask the sound questions of a faulty file */
    bool allow_outside;      /* video paths may leave the base folder */
    bool resume;             /* go on with the run whose CSV is out; one that has no journal yet begins */
    bool keep_failed;        /* resuming: questions that could not be asked are not asked again */
    lb_clip_params clip;     /* tile_size is taken from the model */
    int n_decoders, n_ahead; /* clips decoded at once and kept ready; 0: 2 and 3 for each engine (queue.c) */
    lb_child_params child;
    double
        deadline_s; /* a question's, from its path to its answer; 0: none. child.engine.deadlines must be set with it */
    size_t cache_dir_limit;    /* of what child.engine.cache_dir keeps of videos; default 20 GiB */
    bool planned;              /* make a memory plan first and keep to it (child.engine.vram, allow, ...) */
    int n_engines;             /* that answer at once, each on devices of its own; 0 (default): as many as the planned
                                  devices allow. Without a plan there is one */
    const atomic_bool *cancel; /* true: finish the questions in work, write the CSV, stop; NULL: never */
} lb_run_params;

lb_run_params lb_run_default_params(void);

typedef struct lb_run_result {
    char csv_path[PATH_MAX], db_path[PATH_MAX];
    size_t n_questions, n_answered, n_fallback, n_truths, n_right;
    size_t n_resumed;            /* of n_answered: stored by an earlier process */
    size_t n_videos, n_children; /* videos asked about; engine processes used */
    size_t n_engines;            /* of them at once, on devices of their own */
    size_t n_cached; /* of n_videos: neither decoded, nor detected in, nor encoded, but from the cache's folder */
    size_t n_empty;  /* detector's boxes without area, which were left out */
    size_t n_in_time,
        n_hurried;    /* answers within the deadline; from fewer frames or crops, or less text, for its sake */
    double slowest_s; /* of all that were asked: lb_journal_record.elapsed_s */
    bool interrupted;
    double seconds;        /* without loading the models */
    lb_child_state engine; /* the first one that is still there at the end */
} lb_run_result;

/* What goes on, for whoever shows it. All may be NULL. Strings are good during the call. Calls come from several
 * threads, one at a time; so do those of lb_run_params.child.planned. */
typedef struct lb_run_observer {
    void (*fault)(const char *message, void *user);                             /* of the questions file, each one */
    void (*resumed)(size_t n_stored, size_t n_again, size_t n_all, void *user); /* n_again: failed, asked again */
    void (*loading)(void *user);                                                /* the models are being loaded */
    void (*loaded)(const lb_child_state *state, void *user);                    /* first child ready */
    void (*joined)(int number, const lb_child_state *state, void *user); /* one more engine: the second, third ... */
    void (*answered)(size_t n_done, size_t n_all, const lb_journal_record *record, const char *next_video,
                     const lb_child_state *state, double seconds, void *user);
    void (*warning)(const char *message, void *user); /* a child died, say */
    void (*memory)(const char *text, const char *json,
                   void *user); /* planned against measured, at the end, of each engine */
    void *user;
} lb_run_observer;

/* The memory plan of a run, as a table and as JSON, from malloc, without loading a weight; and how many engines would
 * answer at once, if all others find their devices like the first one's. Errors: DOES_NOT_FIT, INVALID_ARGUMENT (more
 * engines asked for than there can be; table and JSON are there all the same), faults of the questions file as in
 * lb_run_answer, those of the models' headers. */
lb_status lb_run_plan(const lb_run_params *params, const lb_run_observer *observer, char **text, char **json,
                      lb_error *error);

/* Returns OK also when questions were answered by fallback or the run was interrupted (see result).
 * Errors: what keeps every question from being asked; no file is left behind then (folders of --out and
 * --dump may be). REFUSED: a journal is there (without resume), another process writes it, or its answers and those to
 * come would be of two kinds. When storing fails on the way, what was stored stays, to be resumed. */
lb_status lb_run_answer(const lb_run_params *params, const lb_run_observer *observer, lb_run_result *result,
                        lb_error *error);

#endif
