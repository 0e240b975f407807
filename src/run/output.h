/* The names of a run's files, and the settings that its journal keeps. */
#ifndef LB_RUN_OUTPUT_H
#define LB_RUN_OUTPUT_H

#include "run/run.h"

/* out: a folder (made when it is missing) or a file ending in .csv. csv, db: [n] bytes each.
 * submission_<model>_<YYYYmmdd_HHMMSS>.csv in a folder, local time; the journal has .db for .csv. */
lb_status lb_output_paths(const char *out, const char *model_path, char *csv, char *db, size_t n, lb_error *error);

/* What would keep a journal from being made there, asked before models are loaded: REFUSED (one is there), NOT_FOUND,
 * IO (the folder). */
lb_status lb_output_check(const char *db_path, lb_error *error);

lb_status lb_output_journal(const lb_run_params *params, const char *db_path, lb_journal **journal, lb_error *error);

#endif
