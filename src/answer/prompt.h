/* The prompt template: a text file with placeholders {detections} {frames} {question} {choices}.
 *
 *     lb_prompt_template *template;
 *     lb_prompt_template_read(NULL, &template, &error);              // the built-in Vietnamese one
 *     char *text;
 *     lb_prompt_fill(template, &values, &text, &error);              // pictures stand as <image>
 *     free(text);
 */
#ifndef LB_ANSWER_PROMPT_H
#define LB_ANSWER_PROMPT_H

#include "lowbeam/status.h"

#include <stddef.h>

typedef struct lb_prompt_template lb_prompt_template;

typedef struct lb_prompt_values {
    int n_frames;                   /* the {frames} lines are "Frame<i>: <image>", from 1 */
    const char *const *detections;  /* [n_frames], each the line's text for that frame, NULL or "" for none; NULL when
                                       there is no detector: the whole section is left out */
    const char *question;           /* UTF-8, any normalisation form */
    const char *const *choices;     /* [n_choices], as in the questions file, e.g. "A. Có" */
    int n_choices;
} lb_prompt_values;

/* path NULL: the built-in template (prompts/vi.txt, compiled in). Faults of the file (unknown or missing placeholder,
 * not UTF-8, {frames} twice) are FORMAT errors that name file and line. */
lb_status lb_prompt_template_read(const char *path, lb_prompt_template **prompt_template, lb_error *error);
void lb_prompt_template_free(lb_prompt_template *prompt_template);

/* The filled-in text as the CSV's prompt column has it. Also gives, for the tokenizer, where each picture stands:
 * a part is text (length in bytes, from text + offset) or one frame's picture: "<image>" that the template's
 * {frames} wrote; the same characters inside a question are plain text. */
typedef struct lb_prompt_part {
    int frame;      /* -1: text; else the frame (from 0) whose picture stands here */
    size_t offset;  /* into text, bytes */
    size_t length;
} lb_prompt_part;

typedef struct lb_prompt {
    char *text;             /* UTF-8, ends with NUL */
    lb_prompt_part *part;   /* [n_parts], in order, covering text whole */
    size_t n_parts;
} lb_prompt;

lb_status lb_prompt_fill(const lb_prompt_template *prompt_template, const lb_prompt_values *values, lb_prompt *prompt,
                         lb_error *error);
void lb_prompt_free(lb_prompt *prompt);

#endif
