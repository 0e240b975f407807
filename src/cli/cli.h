/* The verbs of the lowbeam program, one file each. */
#ifndef LB_CLI_CLI_H
#define LB_CLI_CLI_H

#include "cli/options.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Exit statuses, the same for all verbs. */
enum {
    LB_EXIT_OK = 0,
    LB_EXIT_NOTHING = 1, /* nothing could be done; one line says why */
    LB_EXIT_USAGE = 2,
    LB_EXIT_FALLBACK = 3, /* finished, some questions answered by fallback */
    LB_EXIT_DOES_NOT_FIT = 4,
    LB_EXIT_INTERRUPTED = 130
};

/* argv[0] is the verb. Return the exit status. */
int lb_cli_answer(int argc, char **argv);
int lb_cli_plan(int argc, char **argv);
int lb_cli_frames(int argc, char **argv);
int lb_cli_convert(int argc, char **argv);
int lb_cli_detect(int argc, char **argv);
int lb_cli_export(int argc, char **argv);

/* Becomes true at SIGINT or SIGTERM; at the second one the process ends at once. */
extern atomic_bool lb_cli_cancelled;
void lb_cli_catch_signals(void);

/* Says why on stderr, in one line, and returns status: how a verb ends early. */
int lb_cli_fail(const char *message, int status);

/* What a verb of one operand begins with: parses, prints --help (usage, the options, example; NULL: none), says what is
 * wrong. -1: go on with *operand; else the exit status. missing: said when there is no operand. */
int lb_cli_begin(const lb_option *options, size_t n, int argc, char **argv, const char *usage, const char *example,
                 const char *missing, const char **operand);

/* Log lines to stderr: warnings, or everything with verbose. */
void lb_cli_log(bool verbose);

#endif
