/* The questions file: read strictly, every fault listed, questions grouped by video.
 *
 * Takes: {"__count__": N, "data": [{"id","question","choices","video_path", optional "answer","support_frames"}]}.
 * Gives: questions in input order, and groups of them that share a video.
 *
 *     lb_dataset *dataset;
 *     lb_fault_list faults = {0};
 *     if (lb_dataset_read("questions.json", NULL, &dataset, &faults, &error) != LB_STATUS_OK)
 *         fprintf(stderr, "%s\n", error.message);                  // not readable, not JSON, no "data"
 *     for (size_t i = 0; i < faults.n; i++)
 *         fprintf(stderr, "%s\n", faults.fault[i].message);        // "questions.json: question 3 (id \"q3\"): ..."
 */
#ifndef LB_DATASET_DATASET_H
#define LB_DATASET_DATASET_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { LB_CHOICES_MIN = 2, LB_CHOICES_MAX = 8 };

typedef struct lb_question {
    size_t index;            /* place in "data", from 0 */
    char *id;                /* "" when the file gave none (then faulty) */
    char *text;              /* the question */
    char *choice[LB_CHOICES_MAX];
    int n_choices;
    char *video_path;        /* as the file has it */
    int answer;              /* truth: 0 for A ...; -1 when the file gives none */
    double *support_frames;  /* seconds, [n_support_frames]; NULL when absent */
    size_t n_support_frames;
    char *fault;             /* NULL, or why this question cannot be asked (the first of its faults) */
} lb_question;

typedef struct lb_video_group {
    char *video_path;     /* that all these questions share */
    size_t *question;     /* indices into lb_dataset.question, in input order */
    size_t n_questions;
} lb_video_group;

typedef struct lb_dataset {
    char *path;
    lb_question *question;  /* [n_questions], input order */
    size_t n_questions;
    lb_video_group *group;  /* in the order in which their videos first appear; faulty questions are in none */
    size_t n_groups;
    size_t n_truths;        /* questions that carry an answer */
} lb_dataset;

typedef struct lb_fault {
    size_t index;   /* question, or (size_t)-1 for the file as a whole */
    char *message;  /* one line: file, question index, id, field, what is wrong */
} lb_fault;

typedef struct lb_fault_list {
    lb_fault *fault;
    size_t n;
} lb_fault_list;

typedef struct lb_dataset_params {
    size_t max_questions; /* take only the first so many (--samples); 0: all. Faults are listed for these alone. */
} lb_dataset_params;

/* Reads and checks. LB_STATUS_OK also when there are faults: the caller decides (design.md: exit 1, or --keep-going).
 * params may be NULL. Errors: NOT_FOUND, IO, FORMAT (not JSON: line and column; no "data" array).
 * Free both outputs with the calls below. */
lb_status lb_dataset_read(const char *path, const lb_dataset_params *params, lb_dataset **dataset,
                          lb_fault_list *faults, lb_error *error);
void lb_dataset_free(lb_dataset *dataset);
void lb_fault_list_free(lb_fault_list *faults);

#endif
