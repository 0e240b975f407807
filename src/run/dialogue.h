/* A filled-in prompt inside InternVL's chat template, as tokens. */
#ifndef LB_RUN_DIALOGUE_H
#define LB_RUN_DIALOGUE_H

#include "answer/prompt.h"
#include "vlm/tokenizer.h"

/* The system message that InternVL2.5 and later were trained with (conversation.py, 'internvl2_5'). */
extern const char lb_system_message[];

/* <|im_start|>system\n...<|im_end|>\n<|im_start|>user\n(prompt)<|im_end|>\n<|im_start|>assistant\n, each picture as
 * <img>, tiles_per_frame[frame] * tokens_per_tile times LB_TOKEN_VISUAL, </img>. tokens: zero-initialised. */
lb_status lb_dialogue_tokens(const lb_tokenizer *tokenizer, const char *system, const lb_prompt *prompt,
                             const int *tiles_per_frame, int tokens_per_tile, lb_tokens *tokens, lb_error *error);

/* The same as text, template and context tokens written out. The caller frees *text. */
lb_status lb_dialogue_text(const char *system, const lb_prompt *prompt, const int *tiles_per_frame, int tokens_per_tile,
                           char **text, size_t *n, lb_error *error);

#endif
