/* What a run shows while it goes on: progress on stderr, device memory lines and results on stdout. */
#ifndef LB_CLI_PROGRESS_H
#define LB_CLI_PROGRESS_H

#include "run/run.h"

typedef struct lb_progress {
    bool terminal;  /* stderr is one: one line that is written over */
    bool line_open; /* such a line stands there */
    double last_s;  /* when a line was last written */
    size_t n_done, n_resumed;
    bool verbose;
} lb_progress;

lb_progress lb_progress_begin(bool verbose);
lb_run_observer lb_progress_observer(lb_progress *progress);

/* Clears the line, so that something else can be printed. */
void lb_progress_clear(lb_progress *progress);

/* Shows a memory plan before anything is loaded: its peak and what is done to fit, all of it with --verbose. user: an
 * lb_progress. For lb_child_params. */
void lb_progress_planned(const lb_child_state *state, void *user);

/* "[VRAM <when>] Allocated: 14.92GB | Reserved: 15.46GB", GB = 2^30 */
void lb_progress_vram(const char *when, size_t allocated, size_t reserved);

#endif
