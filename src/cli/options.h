/* Command-line options as a table: one row an option gives its parsing, its --help line and its old spelling. */
#ifndef LB_CLI_OPTIONS_H
#define LB_CLI_OPTIONS_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum lb_option_kind {
    LB_OPTION_TEXT,    /* const char ** */
    LB_OPTION_INT,     /* int *, between least and most */
    LB_OPTION_SIZE,    /* size_t * as a count */
    LB_OPTION_SECONDS, /* double * */
    LB_OPTION_SHARE,   /* float *, from 0 to 1 */
    LB_OPTION_TRUE,    /* bool *, set; takes no argument */
    LB_OPTION_FALSE,   /* bool *, cleared; takes no argument */
    LB_OPTION_REFUSED, /* accepted spelling of something that is not there yet: help says what to do */
    LB_OPTION_HEADING  /* help: a line between the options */
} lb_option_kind;

typedef struct lb_option {
    const char *name;  /* without the two dashes in front; '-' and '_' within are the same */
    char letter;       /* 0: none */
    const char *alias; /* second long spelling; NULL */
    lb_option_kind kind;
    void *value;
    int least, most;      /* of an INT; both 0: 0 up to INT_MAX */
    const char *argument; /* as --help shows it; NULL: takes none */
    const char *help;
} lb_option;

/* Parses argv[1..]; places everything that is no option into operands [*n_operands <= n_max].
 * help: set when --help or -h was there. Errors: INVALID_ARGUMENT, naming the option and what it takes. */
lb_status lb_options_parse(const lb_option *options, size_t n, int argc, char **argv, const char **operands,
                           int *n_operands, int n_max, bool *help, lb_error *error);

/* The table as --help's lines on stdout. */
void lb_options_print(const lb_option *options, size_t n);

#endif
