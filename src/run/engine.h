/* The engine in one process: a clip's tiles and its questions in, answers out. The engine child runs it behind a
 * socket; lowbeam.h's calls run it in the caller's process.
 *
 *     lb_engine *engine;
 *     lb_engine_open(&params, &engine, &error);
 *     lb_engine_answer(engine, &clip, questions, n, callbacks);     // one reply a question, batch by batch
 *     lb_engine_free(engine);
 */
#ifndef LB_RUN_ENGINE_H
#define LB_RUN_ENGINE_H

#include "dataset/dataset.h"
#include "lowbeam/status.h"
#include "vlm/vlm.h"

typedef struct lb_engine lb_engine;

typedef struct lb_engine_params {
    lb_vlm_params vlm;
    const char *prompt_path; /* template file; NULL: the built-in one */
    const char *system;      /* system message; NULL: the one that InternVL was trained with */
    int max_new_tokens;      /* default 512 */
    bool letter_only;        /* read the letters' logits instead of generating; default false */
    bool reuse;              /* evaluate what a video's questions share once; default true */
} lb_engine_params;

lb_engine_params lb_engine_default_params(void);

/* params: copied, but not its strings, which must outlive the engine. */
lb_status lb_engine_open(const lb_engine_params *params, lb_engine **engine, lb_error *error);
void lb_engine_free(lb_engine *engine);
const lb_vlm *lb_engine_vlm(const lb_engine *engine);

/* A clip as the engine sees it: borrowed for the call. */
typedef struct lb_engine_clip {
    int n_frames;
    const int *tiles_per_frame; /* [n_frames] */
    const uint8_t *tiles;       /* [sum of tiles_per_frame][size][size][3] */
    const char *dump_dir;       /* folder for embeddings.npy; NULL: none */
    uint64_t id;                /* not 0: its embeddings are kept until a clip of another id comes */
} lb_engine_clip;

typedef struct lb_engine_question {
    const char *id, *text;
    const char *const *choices;
    int n_choices;
    bool wanted;          /* false: takes part in finding what the questions share, and in the batches, only */
    const char *dump_dir; /* folder for prompt.txt, tokens.npy, logits.npy; NULL: none */
} lb_engine_question;

/* What became of one question. Strings are good during the callback. */
typedef struct lb_engine_reply {
    int question;     /* index into the questions */
    lb_status status; /* not OK: failed, message says why */
    const char *message;
    int letter;         /* 0 for A ... */
    bool fallback;      /* A, because nothing gave a letter */
    const char *text;   /* what the model said, cleaned; "" when failed */
    const char *prompt; /* template filled in; "" when it came not so far */
    int n_prompt_tokens, n_new_tokens;
    const float *letter_logits;            /* [n_choices]; NULL when failed */
    const float *letter_probabilities;     /* [n_choices], letter_only; else NULL */
    double encode_s, prompt_s, generate_s; /* encode: of the video; the others: this question's share */
} lb_engine_reply;

typedef struct lb_engine_callbacks {
    void (*reply)(const lb_engine_reply *reply, void *user);
    bool (*keep_going)(void *user); /* asked between batches; false: the rest is not answered. NULL: always */
    void *user;
} lb_engine_callbacks;

/* Every wanted question gets one reply, unless keep_going said no. Questions are answered in batches of the vlm's
 * n_parallel in their order, whether wanted or not in turn, so that a batch does not depend on what was answered
 * before; a batch without a wanted question is left out. */
void lb_engine_answer(lb_engine *engine, const lb_engine_clip *clip, const lb_engine_question *questions, int n,
                      lb_engine_callbacks callbacks);

/* probabilities: [n], sums to 1. */
void lb_softmax(const float *logits, int n, float *probabilities);

#endif
