/* The prompt template: a text file with placeholders {detections} {frames} {question} {choices}.
 *
 *     lb_prompt_template *prompt_template;
 *     lb_prompt_template_read(NULL, &prompt_template, &error);              // the built-in Vietnamese one
 *     lb_prompt prompt;
 *     lb_prompt_fill(prompt_template, &values, &prompt, &error);            // pictures stand as <image>
 *     for (size_t i = 0; i < prompt.n_parts; i++)
 *         feed(prompt.part[i].frame, prompt.text + prompt.part[i].offset, prompt.part[i].length);
 *     lb_prompt_free(&prompt);
 *
 * The template's rules stand in docs/prompt.md.
 */
#ifndef LB_ANSWER_PROMPT_H
#define LB_ANSWER_PROMPT_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct lb_prompt_template lb_prompt_template;

/* path NULL: the built-in template (prompts/vi.txt, compiled in). Faults of the file (unknown or missing placeholder,
 * not UTF-8, {frames} twice, ...) are FORMAT errors that name file and line; also NOT_FOUND, IO, REFUSED (a folder,
 * more than 1 MiB), OUT_OF_MEMORY. *prompt_template is NULL then. */
lb_status lb_prompt_template_read(const char *path, lb_prompt_template **prompt_template, lb_error *error);
void lb_prompt_template_free(lb_prompt_template *prompt_template);

/* The template itself, LF line ends, for a run's settings. Good until the template is freed. */
const char *lb_prompt_template_text(const lb_prompt_template *prompt_template);

/* Whether all frames stand before the question and the choices: only then can a video's questions share the frames'
 * evaluation. */
bool lb_prompt_template_frames_first(const lb_prompt_template *prompt_template);

typedef struct lb_prompt_values {
    int n_frames;                  /* at least 1; the {frames} lines are "Frame<i>: <image>", from 1 */
    const char *const *detections; /* [n_frames], each what was found in that frame, such as "3 (car, car, truck)": the
                                      line is "Frame<i>: " and this; NULL or "" for none: no line. NULL when there is no
                                      detector. Without any line the whole section is left out. */
    const char *question;          /* UTF-8, any normalisation form */
    const char *const *choices;    /* [n_choices], as in the questions file; "A. " is put before one that does not begin
                                      with its own letter (lb_choice_label_bytes) */
    int n_choices;                 /* 2 to 8 */
} lb_prompt_values;

/* For the tokenizer, where each picture stands: a part is text, or one frame's picture: an "<image>" that the
 * template's {frames} wrote; the same characters inside a question, a choice or the template are plain text. */
typedef struct lb_prompt_part {
    int frame;     /* -1: text; else the frame (from 0) whose picture stands here */
    size_t offset; /* into text, bytes */
    size_t length; /* at least 1 */
} lb_prompt_part;

typedef struct lb_prompt {
    char *text;           /* UTF-8, ends with NUL: the filled-in text as the CSV's prompt column has it */
    lb_prompt_part *part; /* [n_parts], in order, covering text whole */
    size_t n_parts;
} lb_prompt;

/* Errors: INVALID_ARGUMENT (a value out of range, not UTF-8), OUT_OF_MEMORY; prompt is zero then. */
lb_status lb_prompt_fill(const lb_prompt_template *prompt_template, const lb_prompt_values *values, lb_prompt *prompt,
                         lb_error *error);
void lb_prompt_free(lb_prompt *prompt);

#endif
