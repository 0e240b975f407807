/* The settings of a run: what its journal keeps of them, and what must be the same when it is resumed.
 *
 *     lb_settings settings = {0};
 *     lb_settings_collect(&settings, params, dataset, &error);
 *     lb_settings_journal(&settings, sources, "run.db", &journal, &error); // a new one that holds them
 *     lb_settings_compare(&settings, journal, warn, user, &error);         // or: those of one that is there
 *     lb_settings_free(&settings);
 */
#ifndef LB_RUN_SETTINGS_H
#define LB_RUN_SETTINGS_H

#include "run/run.h"
#include "run/sources.h"

typedef enum lb_setting_rule {
    LB_SETTING_FREE,  /* may change between a run and its resumption: changes no answer, or something else binds it */
    LB_SETTING_NOTED, /* a warning: answers can differ in their last digits */
    LB_SETTING_BINDS, /* must be the same */
    LB_SETTING_BINDS_HIDDEN /* must be the same; its value says nothing to a reader (a hash, a long text) */
} lb_setting_rule;

typedef struct lb_setting {
    const char *name; /* in the journal's table "run" */
    const char *what; /* as a message names it: "--num-frames" */
    char *value;
    lb_setting_rule rule;
} lb_setting;

enum { LB_SETTINGS_MAX = 64 };

typedef struct lb_settings {
    lb_setting entry[LB_SETTINGS_MAX];
    size_t n;
    bool out_of_memory;
} lb_settings;

/* Adds all that params, the questions and the prompt template's text say. Whoever gives a run a new option that can
 * change an answer adds its row there. Errors: those of lb_prompt_template_read, OUT_OF_MEMORY. */
lb_status lb_settings_collect(lb_settings *settings, const lb_run_params *params, const lb_dataset *dataset,
                              lb_error *error);

/* One more. name and what: borrowed; value: printf's format. */
void lb_settings_add(lb_settings *settings, lb_setting_rule rule, const char *name, const char *what,
                     const char *format, ...) __attribute__((format(printf, 5, 6)));

/* What is known when the engine runs: its device. */
void lb_settings_add_device(lb_settings *settings, const lb_child_state *state);

void lb_settings_free(lb_settings *settings);

/* A new journal that holds them and the fingerprints of the weights. Errors: lb_journal_create's. */
lb_status lb_settings_journal(const lb_settings *settings, lb_sources *sources, const char *path, lb_journal **journal,
                              lb_error *error);

/* REFUSED, with all that differ, when what binds is not as the journal at path (for the message) has it. warn: for each
 * NOTED one that differs; may be NULL. */
lb_status lb_settings_compare(const lb_settings *settings, lb_journal *journal, const char *path,
                              void (*warn)(const char *message, void *user), void *user, lb_error *error);

#endif
