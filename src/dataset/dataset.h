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
 *         fprintf(stderr, "%s\n", faults.fault[i].message); // questions.json: data[3].choices (id "q3"): found 1, ...
 *
 * What each field may hold stands in docs/questions.md.
 */
#ifndef LB_DATASET_DATASET_H
#define LB_DATASET_DATASET_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { LB_CHOICES_MIN = 2, LB_CHOICES_MAX = 8 };

typedef struct lb_question {
    size_t index;                 /* place in "data", from 0 */
    char *id;                     /* "" when the file gave none (then faulty) */
    char *text;                   /* the question; "" when the file gave none (then faulty) */
    char *choice[LB_CHOICES_MAX]; /* [n_choices], as the file has them, such as "A. Có" */
    int n_choices;                /* 2 to 8; a faulty question may have fewer */
    char *video_path;             /* as the file has it; "" when it gave none (then faulty) */
    int answer;                   /* truth: 0 for A ...; -1 when the file gives none */
    double *support_frames;       /* seconds, [n_support_frames]; NULL when absent or empty */
    size_t n_support_frames;
    char *fault; /* NULL, or why this question cannot be asked (the first of its faults) */
} lb_question;

typedef struct lb_video_group {
    char *video_path; /* that all these questions share */
    size_t *question; /* indices into lb_dataset.question, in input order */
    size_t n_questions;
} lb_video_group;

typedef struct lb_dataset {
    char *path;
    lb_question *question; /* [n_questions], input order */
    size_t n_questions;
    lb_video_group *group; /* in the order in which their videos first appear; faulty questions are in none */
    size_t n_groups;
    size_t n_truths; /* questions that carry an answer */
} lb_dataset;

typedef struct lb_fault {
    size_t index;  /* question, or (size_t)-1 for the file as a whole */
    char *message; /* one line: file, question index and field as in data[3].choices, id, what is wrong */
} lb_fault;

typedef struct lb_fault_list {
    lb_fault *fault;
    size_t n;
} lb_fault_list;

typedef struct lb_dataset_params {
    size_t max_questions; /* take only the first so many (--samples); 0: all. Faults are listed for these alone. */
} lb_dataset_params;

/* Reads and checks. LB_STATUS_OK also when there are faults: the caller decides (design.md: exit 1, or --keep-going).
 * params may be NULL. Errors: NOT_FOUND, IO, REFUSED (a folder, more than 1 GiB), FORMAT (not JSON, not UTF-8, a key
 * twice in one object: line and column; no "data" array), OUT_OF_MEMORY; *dataset is NULL and faults empty then.
 * faults: what it held before is not freed. Free both outputs with the calls below. */
lb_status lb_dataset_read(const char *path, const lb_dataset_params *params, lb_dataset **dataset,
                          lb_fault_list *faults, lb_error *error);
void lb_dataset_free(lb_dataset *dataset);
void lb_fault_list_free(lb_fault_list *faults);

/* Bytes of the label that a choice begins with when it carries its own letter: the letter of its place (0 for A ...),
 * in either case, then '.', ')' or ':', then any blanks ("A. Có": 3). 0 when it has none. */
size_t lb_choice_label_bytes(const char *choice, int index);

#endif
