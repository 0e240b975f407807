/* lowbeam: multiple-choice questions about dashcam video, answered with InternVL3 on your own machine.
 *
 * Takes: the two GGUF files of an InternVL3 (or 3.5) checkpoint, a video, a question and its choices; a detector's
 * GGUF, if wanted. Gives: the letter of a choice, the model's words, and how sure it was.
 *
 *     lb_error error = {0};
 *     lb_engine_options options = lb_engine_default_options();
 *     options.model = "InternVL3-8B.gguf";
 *     options.mmproj = "mmproj-InternVL3-8B.gguf";
 *     lb_answerer *answerer;
 *     if (lb_answerer_open(&options, &answerer, &error) != LB_STATUS_OK) { puts(error.message); return 1; }
 *     const char *choices[] = {"A. Có", "B. Không"};
 *     lb_answer answer;
 *     if (lb_answerer_ask(answerer, "clip.mp4", "Có biển báo dừng không?", choices, 2, &answer, &error) ==
 * LB_STATUS_OK) printf("%c: %s\n", answer.letter, answer.text); lb_answer_free(&answer); lb_answerer_close(answerer);
 *
 * The models run in the calling process here: a library below that aborts ends it. The program `lowbeam answer` runs
 * them in a process of their own, keeps a journal and writes a CSV.
 */
#ifndef LOWBEAM_H
#define LOWBEAM_H

#include "lowbeam/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lb_answerer lb_answerer;

/* Strings are copied by lb_answerer_open. Make one with lb_engine_default_options, then set fields. */
typedef struct lb_engine_options {
    const char *model;       /* language model, GGUF; required */
    const char *mmproj;      /* vision encoder and projector, GGUF; required */
    const char *device;      /* "auto" (the first GPU, else the CPU), "cpu", "cuda0", ...; default "auto" */
    const char *prompt_file; /* template with {frames} {question} {choices} {detections}; NULL: the built-in one */
    const char *system;      /* system message; NULL: the one that the model was trained with */
    int n_threads;           /* CPU threads; 0 (default): one a core */
    int n_frames;            /* frames of a video, spread evenly; default 8 */
    int max_tiles;           /* tiles of a frame at most, a thumbnail more when above 1; default 1 */
    int max_new_tokens;      /* longest answer; default 512 */
    bool letter_only;        /* read the letters' probabilities instead of generating text; default false */
    bool exact;              /* f32 KV cache, no flash attention; default false */
    const char *detector;    /* Grounding DINO, a GGUF that `lowbeam convert` made: what it finds is named in the prompt
                                and    shown as further tiles; NULL (default): none */
    const char *labels_file; /* what it looks for, one label a line; NULL: traffic signs, lights, vehicles ... */
    float box_threshold;     /* a box counts above this score; default 0.3 */
    float text_threshold;    /* a word is in a box's label above this score; default 0.25 */
    int max_detections;      /* boxes of a frame at most; default 5 */
    size_t cache_bytes; /* host memory for frames, tiles and embeddings of the videos asked about last; 0 (default):
                           a quarter of what is free, 8 GiB at most */
} lb_engine_options;

LB_API lb_engine_options lb_engine_default_options(void);

/* Loads the models. On the device: their weights, activations, and a KV cache of 2 * n_layer * n_embd_kv * 2 bytes a
 * token. Errors, each one line that names the file or the option and the way out: NOT_FOUND, FORMAT, UNSUPPORTED,
 * OUT_OF_MEMORY, BACKEND. */
LB_API lb_status lb_answerer_open(const lb_engine_options *options, lb_answerer **answerer, lb_error *error);

typedef struct lb_answer {
    char letter;          /* 'A' to 'H' */
    bool fallback;        /* the text named no letter among the choices: letter is 'A' */
    char *text;           /* what the model said, UTF-8 without white space around it; owned by this */
    float probability[8]; /* [n_choices], of the letters as first token of the answer */
    int n_prompt_tokens, n_new_tokens;
} lb_answer;

/* Answers one question (UTF-8) about one video file, or a folder of PNG or JPEG files. 2 to 8 choices. Frames
 * and embeddings of the videos asked about last are kept as long as options.cache_bytes have room for them, and serve
 * as long as the file is not changed; a video whose frames alone are larger gives DOES_NOT_FIT. Errors: those of
 * reading the video (NOT_FOUND, FORMAT, TIMEOUT, CHILD_DIED ...), DOES_NOT_FIT, BACKEND, NOT_FINITE; answer is zero
 * then. Not for several threads at once. */
LB_API lb_status lb_answerer_ask(lb_answerer *answerer, const char *video, const char *question,
                                 const char *const *choices, int n_choices, lb_answer *answer, lb_error *error);

LB_API void lb_answer_free(lb_answer *answer);        /* zeroes it; a zeroed one is allowed */
LB_API void lb_answerer_close(lb_answerer *answerer); /* frees everything; NULL is allowed */

#ifdef __cplusplus
}
#endif
#endif
