/* The names of a run's files. */
#ifndef LB_RUN_OUTPUT_H
#define LB_RUN_OUTPUT_H

#include "run/run.h"

/* Whether out names a CSV rather than a folder for one. */
bool lb_output_is_file(const char *out);

/* out: a folder (made when it is missing) or a file ending in .csv. csv, db: [n] bytes each.
 * submission_<model>_<YYYYmmdd_HHMMSS>.csv in a folder, local time, with _2, _3 where that is taken; the journal has
 * .db for .csv. */
lb_status lb_output_paths(const char *out, const char *model_path, char *csv, char *db, size_t n, lb_error *error);

/* What would keep a journal from being made there, asked before models are loaded: REFUSED (one is there), NOT_FOUND,
 * IO (the folder). */
lb_status lb_output_check(const char *db_path, lb_error *error);

#endif
