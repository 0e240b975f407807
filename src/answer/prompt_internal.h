/* Shared by the files of src/answer: a template after it was read. */
#ifndef LB_ANSWER_PROMPT_INTERNAL_H
#define LB_ANSWER_PROMPT_INTERNAL_H

#include "answer/prompt.h"

typedef enum lb_prompt_kind {
    LB_PROMPT_KIND_DETECTIONS,
    LB_PROMPT_KIND_FRAMES,
    LB_PROMPT_KIND_QUESTION,
    LB_PROMPT_KIND_CHOICES,
    LB_PROMPT_KIND_TEXT,
} lb_prompt_kind;

/* A placeholder, a line feed, or text within one line. */
typedef struct lb_prompt_piece {
    lb_prompt_kind kind;
    size_t offset, length;        /* into the template's text */
    bool is_in_detection_section; /* left out together with {detections} */
} lb_prompt_piece;

struct lb_prompt_template {
    char *text; /* LF line ends, none at the end */
    lb_prompt_piece *piece;
    size_t n_pieces;
};

/* prompts/vi.txt, which the build makes a C source of (cmake/embed.cmake). */
extern const char lb_prompt_vi[];
extern const size_t lb_prompt_vi_n;

#endif
