/* Shared by the files of src/dataset: the reader's state while one file is read, and its faults. */
#ifndef LB_DATASET_DATASET_INTERNAL_H
#define LB_DATASET_DATASET_INTERNAL_H

#include "dataset/dataset.h"

#include <jansson.h>

typedef struct lb_dataset_reader {
    const char *path;
    lb_fault_list *faults;
    size_t fault_capacity;
    bool out_of_memory; /* an allocation failed: what was read is incomplete */
} lb_dataset_reader;

enum { LB_SHORT_TEXT_BYTES = 128 };

/* text as a message can show it: on one line, cut at a character's boundary with "..." when long. Returns out. */
const char *lb_short_text(const char *text, char out[LB_SHORT_TEXT_BYTES]);

/* Adds one fault. question NULL: of the file as a whole. field: "" or as in ".choices[1]". */
void lb_dataset_fault(lb_dataset_reader *reader, lb_question *question, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A copy that the caller frees. NULL, with out_of_memory set, when there is no memory. */
char *lb_dataset_copy(lb_dataset_reader *reader, const char *text);

/* "a string", "an array", ... ; value may be NULL: "nothing". */
const char *lb_json_kind(const json_t *value);

/* Reads one entry of "data" into question (index set, the rest zero), with a fault for each thing that is wrong. */
void lb_question_read(lb_dataset_reader *reader, const json_t *entry, lb_question *question);
void lb_question_clear(lb_question *question);

#endif
