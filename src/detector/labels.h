/* From the caller's labels to the detector's prompt: "traffic sign. traffic light." as tokens, with each label's place.
 *
 *     lb_labels *labels;
 *     lb_labels_create(tokenizer, lb_labels_default, LB_LABELS_DEFAULT_N, 256, &labels, &error);
 *     if (labels->unknown) warn("the vocabulary does not cover: %s", labels->unknown);
 *     lb_detector_set_labels(detector, labels->token, labels->n_tokens, &error);
 *     lb_labels_free(labels);
 */
#ifndef LB_DETECTOR_LABELS_H
#define LB_DETECTOR_LABELS_H

#include "detector/wordpiece.h"
#include "lowbeam/status.h"

#include <stddef.h>
#include <stdint.h>

/* The 14 labels of the work being replaced, in its order (design.md). */
enum { LB_LABELS_DEFAULT_N = 14 };
extern const char *const lb_labels_default[LB_LABELS_DEFAULT_N];

typedef struct lb_labels {
    int n;
    char **label;   /* [n] as the caller wrote them, white space at the ends taken away */
    char *text;     /* lower case, joined with ". " and a "." at the end, as transformers' GroundingDinoProcessor */
    int32_t *token; /* [n_tokens] [CLS], the labels' tokens with "." after each, [SEP] */
    int n_tokens;
    int *first, *end; /* [n] label i is tokens first[i] .. end[i] - 1, its "." not among them */
    char *unknown;    /* words that became [UNK], as "a, b"; NULL when there are none */
} lb_labels;

/* Errors: INVALID_ARGUMENT (no labels; one that is empty or holds a "."; more than max_tokens tokens together: the
 * count), FORMAT (not UTF-8), OUT_OF_MEMORY. */
lb_status lb_labels_create(const lb_wordpiece *tokenizer, const char *const *label, int n, int max_tokens,
                           lb_labels **labels, lb_error *error);

/* The same from a text file, one label a line, empty lines passed over. Errors: also NOT_FOUND, IO. */
lb_status lb_labels_read(const lb_wordpiece *tokenizer, const char *path, int max_tokens, lb_labels **labels,
                         lb_error *error);
void lb_labels_free(lb_labels *labels);

#endif
