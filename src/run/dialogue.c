#include "run/dialogue.h"

#include "answer/text.h"
#include "base/error.h"
#include "vlm/vlm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char lb_system_message[] =
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。";

/* Where the template's pieces go: into tokens, or into text. */
typedef struct writer {
    lb_status (*text)(struct writer *to, const char *text, size_t n, lb_error *error);
    lb_status (*im_start)(struct writer *to, lb_error *error);
    lb_status (*im_end)(struct writer *to, lb_error *error);
    lb_status (*picture)(struct writer *to, size_t n_visual, lb_error *error);
    const lb_tokenizer *tokenizer;
    lb_tokens *tokens;
    FILE *file;
} writer;

/* Text between two special tokens is normalised and tokenized in one piece, as the reference does: joined first. */
static lb_status put_text(writer *to, char *joined, size_t n, lb_error *error) {
    joined[n] = 0;
    char *nfc = lb_text_nfc(joined);
    if (!nfc)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "a text of the prompt cannot be normalised: no memory, or not UTF-8");
    lb_status status = to->text(to, nfc, strlen(nfc), error);
    free(nfc);
    return status;
}

static lb_status walk(writer *to, const char *system, const lb_prompt *prompt, const int *tiles_per_frame,
                      int tokens_per_tile, lb_error *error) {
    size_t capacity = strlen(system) + strlen(prompt->text) + 64, n = 0;
    char *joined = malloc(capacity);
    if (!joined)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the prompt");
    lb_status status = to->im_start(to, error);
    n = (size_t)snprintf(joined, capacity, "system\n%s", system);
    if (status == LB_STATUS_OK)
        status = put_text(to, joined, n, error);
    if (status == LB_STATUS_OK)
        status = to->im_end(to, error);
    if (status == LB_STATUS_OK)
        status = to->text(to, "\n", 1, error);
    if (status == LB_STATUS_OK)
        status = to->im_start(to, error);
    memcpy(joined, "user\n", 5);
    n = 5;
    for (size_t i = 0; i < prompt->n_parts && status == LB_STATUS_OK; i++) {
        const lb_prompt_part *part = &prompt->part[i];
        if (part->frame < 0) {
            memcpy(joined + n, prompt->text + part->offset, part->length);
            n += part->length;
            continue;
        }
        status = put_text(to, joined, n, error);
        n = 0;
        if (status == LB_STATUS_OK)
            status = to->picture(to, (size_t)tiles_per_frame[part->frame] * (size_t)tokens_per_tile, error);
    }
    if (status == LB_STATUS_OK)
        status = put_text(to, joined, n, error);
    if (status == LB_STATUS_OK)
        status = to->im_end(to, error);
    if (status == LB_STATUS_OK)
        status = to->text(to, "\n", 1, error);
    if (status == LB_STATUS_OK)
        status = to->im_start(to, error);
    if (status == LB_STATUS_OK)
        status = to->text(to, "assistant\n", 10, error);
    free(joined);
    return status;
}

static lb_status token_text(writer *to, const char *text, size_t n, lb_error *error) {
    return lb_tokenizer_add_text(to->tokenizer, text, n, to->tokens, error);
}

static lb_status token_im_start(writer *to, lb_error *error) {
    return lb_tokens_push(to->tokens, lb_tokenizer_special(to->tokenizer)->im_start, 1, error);
}

static lb_status token_im_end(writer *to, lb_error *error) {
    return lb_tokens_push(to->tokens, lb_tokenizer_special(to->tokenizer)->im_end, 1, error);
}

static lb_status token_picture(writer *to, size_t n_visual, lb_error *error) {
    const lb_special_tokens *special = lb_tokenizer_special(to->tokenizer);
    lb_status status = lb_tokens_push(to->tokens, special->img, 1, error);
    if (status == LB_STATUS_OK)
        status = lb_tokens_push(to->tokens, LB_TOKEN_VISUAL, n_visual, error);
    return status == LB_STATUS_OK ? lb_tokens_push(to->tokens, special->img_end, 1, error) : status;
}

lb_status lb_dialogue_tokens(const lb_tokenizer *tokenizer, const char *system, const lb_prompt *prompt,
                             const int *tiles_per_frame, int tokens_per_tile, lb_tokens *tokens, lb_error *error) {
    writer into = {token_text, token_im_start, token_im_end, token_picture, tokenizer, tokens, NULL};
    return walk(&into, system, prompt, tiles_per_frame, tokens_per_tile, error);
}

static lb_status file_text(writer *to, const char *text, size_t n, lb_error *error) {
    (void)error;
    fwrite(text, 1, n, to->file);
    return LB_STATUS_OK;
}

static lb_status file_im_start(writer *to, lb_error *error) {
    (void)error;
    fputs("<|im_start|>", to->file);
    return LB_STATUS_OK;
}

static lb_status file_im_end(writer *to, lb_error *error) {
    (void)error;
    fputs("<|im_end|>", to->file);
    return LB_STATUS_OK;
}

static lb_status file_picture(writer *to, size_t n_visual, lb_error *error) {
    (void)error;
    fputs("<img>", to->file);
    for (size_t i = 0; i < n_visual; i++)
        fputs("<IMG_CONTEXT>", to->file);
    fputs("</img>", to->file);
    return LB_STATUS_OK;
}

lb_status lb_dialogue_text(const char *system, const lb_prompt *prompt, const int *tiles_per_frame, int tokens_per_tile,
                           char **text, size_t *n, lb_error *error) {
    *text = NULL;
    *n = 0;
    FILE *file = open_memstream(text, n);
    if (!file)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the prompt's text");
    writer into = {file_text, file_im_start, file_im_end, file_picture, NULL, NULL, file};
    lb_status status = walk(&into, system, prompt, tiles_per_frame, tokens_per_tile, error);
    if (fclose(file) != 0 && status == LB_STATUS_OK)
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the prompt's text");
    return status;
}
