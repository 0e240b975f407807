/* The engine in one process: a clip's frames and tiles and its questions in, answers out. The engine child runs it
 * behind a socket; lowbeam.h's calls run it in the caller's process.
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
#include "memory/cache.h"
#include "memory/plan.h"
#include "run/findings.h"
#include "vlm/vlm.h"

typedef struct lb_engine lb_engine;
struct lb_sight; /* run/sight.h */

typedef struct lb_engine_question {
    const char *id, *text;
    const char *const *choices;
    int n_choices;
    bool wanted;          /* false: takes part in finding what the questions share, and in the batches, only */
    const char *dump_dir; /* folder for prompt.txt, tokens.npy, logits.npy; NULL: none */
} lb_engine_question;

/* What a run asks for at most, known before anything is loaded. */
typedef struct lb_engine_work {
    int n_frames;
    int tiles_per_frame;               /* with the thumbnail, without crops */
    int picture_width, picture_height; /* of the frame, as decoded, that makes the detector's largest picture; 0: the
                                          largest that its file allows */
    size_t frame_bytes;                /* of the largest frame as decoded */
    const lb_engine_question *longest; /* [n_longest] the longest questions */
    int n_longest;
} lb_engine_work;

typedef struct lb_engine_params {
    lb_vlm_params vlm;
    const char *prompt_path;             /* template file; NULL: the built-in one */
    const char *system;                  /* system message; NULL: the one that InternVL was trained with */
    int max_new_tokens;                  /* default 512 */
    bool letter_only;                    /* read the letters' logits instead of generating; default false */
    bool reuse;                          /* evaluate what a video's questions share once; default true */
    const char *detector_path;           /* Grounding DINO, GGUF; NULL (default): none */
    const char *labels_path;             /* what it looks for, a file with one label a line; NULL: lb_labels_default */
    float box_threshold, text_threshold; /* defaults: lb_find_default_params */
    int max_detections;                  /* of a frame that enter the prompt and the crops; default 5 */
    int detector_batch;                  /* most frames at once; 0 (default): chosen, halved while memory is short */
    lb_cache *cache;                     /* for what the models made of clips with a key; NULL (default): none */
    /* For the memory plan: */
    const struct lb_engine_work *work; /* NULL (default): no plan; everything is on the device as it is asked for */
    size_t vram[LB_DEVICES_MAX];       /* budgets of the devices in bytes */
    int n_vram;                        /* of them; 0: what is free less a margin; 1: the same for each device */
    int n_retries;                     /* plans before this one that met their end: budgets are cut to what is free
                                          now, and for each to an eighth less than the peak of the one before */
    unsigned allow;                    /* LB_ALLOW_*: what may change answers */
    bool more_devices;                 /* there are others than vlm.device: a plan that holds all as it is, or none */
    int weight_bits;                   /* 8, 4: take such weights in any case; 0: what the file has */
    int kv_bits;                       /* 8: take a q8_0 KV cache in any case; 0: f16, f32 with vlm.exact */
    size_t ram_bytes;                  /* most that is kept in host memory, weights that wait there and caches together;
                                          0: no limit */
    size_t cache_bytes;             /* of that, most for frames and tiles (for the plan's table alone); 0: no limit */
    struct lb_tokenizer *tokenizer; /* NULL (default), or the model's, opened already */
    bool deadlines;        /* clips will come with left_s: speeds are measured when the engine opens; default false */
    const char *cache_dir; /* for quantized weights; NULL: beside the model, or the user's cache folder */
} lb_engine_params;

lb_engine_params lb_engine_default_params(void);

/* Several devices as they are used, see lb_planner_order_devices: the first engine of a run finds it, the others keep
 * it. */
typedef struct lb_device_order {
    char names[64 * LB_DEVICES_MAX]; /* as --device takes them; "": there is one device, or nothing was found yet */
    size_t vram[LB_DEVICES_MAX];
    int n_vram;  /* 0: --vram does not tell them apart */
    int n_seen;  /* how many of them, the first, an engine needs to see, as far as is known; 0: not yet; -1: what is
                    seen cannot be chosen */
    int settled; /* 1 + the number of smaller plans for which n_seen is the last word; 0: for none */
} lb_device_order;

/* params then point to order->names. */
void lb_device_order_apply(const lb_device_order *order, lb_engine_params *params);

int lb_device_order_count(const lb_device_order *order); /* of its devices; 0: it has none */

/* own: the devices first to first + n - 1 of all, all of them seen (where that can be chosen). */
void lb_device_order_take(const lb_device_order *all, int first, int n, lb_device_order *own);

/* The memory plan for params (work must be set), without loading a weight. Errors: DOES_NOT_FIT (plan is filled in all
 * the same), those of the files' headers. Leaves the tokenizer in params for lb_engine_open, which takes it over. */
lb_status lb_engine_plan(lb_engine_params *params, lb_plan *plan, lb_error *error);

/* params: copied, but not its strings, which must outlive the engine. plan: of lb_engine_plan, kept to; NULL: none. */
lb_status lb_engine_open(const lb_engine_params *params, const lb_plan *plan, lb_engine **engine, lb_error *error);
void lb_engine_free(lb_engine *engine);
const lb_vlm *lb_engine_vlm(const lb_engine *engine);
const lb_preprocess_params *lb_engine_preprocess(const lb_engine *engine); /* the detector's; NULL: no detector */

/* What of the plan (or what memory left) can change what the models see in its last digits: batches, and how much. */
void lb_engine_vision(const lb_engine *engine, char *text, size_t n);

/* Device memory after the VLM was loaded, before the detector. */
void lb_engine_vlm_memory(const lb_engine *engine, size_t *allocated, size_t *reserved);

/* What was planned against what was seen since the engine was opened; from malloc. NULL: no plan, or no memory. */
char *lb_engine_memory_text(lb_engine *engine);
char *lb_engine_memory_json(lb_engine *engine);

/* A clip as the engine sees it: borrowed for the call. What stands below tiles is read by an engine with a detector. */
typedef struct lb_engine_clip {
    int n_frames;
    const int *tiles_per_frame; /* [n_frames] of the frames alone */
    const uint8_t *tiles;       /* [sum of tiles_per_frame][size][size][3] */
    const uint8_t *frames;      /* [n_frames][height][width][3], for the crops */
    int width, height;
    lb_resized resized;
    const int64_t *index; /* [n_frames], for the dump, as time_s */
    const double *time_s; /* [n_frames] */
    const char *dump_dir; /* folder for tiles.npy, tiles_per_frame.npy, embeddings.npy, detections.json; NULL: none */
    const char *key;      /* not NULL: what the models make of it is kept under this name in params.cache */
    const void *seen;     /* [n_seen] what was kept of it before, as lb_sight_write writes it: of the rest only n_frames
                             is read then. NULL: none */
    size_t n_seen;
    double left_s; /* what there is of time, from the call to each question's answer as if it were the only one; frames
                      and crops are left out, and a long text is cut, to keep to it. 0: no deadline. Never negative */
} lb_engine_clip;

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
    const float *letter_logits;        /* [n_choices]; NULL when failed */
    const float *letter_probabilities; /* [n_choices], letter_only; else NULL */
    double detect_s, encode_s;         /* of the video */
    double prompt_s, generate_s;       /* this question's share */
    int n_empty;                       /* the video's boxes without area, which were left out */
    double elapsed_s;                  /* from the call to this reply, other batches' time not counted */
    int n_frames;                      /* that were looked at */
    bool fewer_crops; /* the deadline let in no more than max_crops of a frame; 0: the detector was not asked */
    int max_crops;
    bool cut; /* the text ended for want of time */
} lb_engine_reply;

typedef struct lb_engine_callbacks {
    void (*reply)(const lb_engine_reply *reply, void *user);
    bool (*keep_going)(void *user); /* asked between batches; false: the rest is not answered. NULL: always */
    /* What the models saw, to be kept (lb_sight_write); called in a thread of its own while the questions are being
     * answered, and only when it was not known before. NULL: nobody wants it. */
    void (*seen)(const struct lb_sight *sight, void *user);
    void *user;
} lb_engine_callbacks;

/* Whether a clip of that key needs no more than its n_frames and key, until the next call. */
bool lb_engine_knows(const lb_engine *engine, const char *key);

/* Every wanted question gets one reply, unless keep_going said no. Questions are answered in batches of the vlm's
 * n_parallel in their order, whether wanted or not in turn, so that a batch does not depend on what was answered
 * before; a batch without a wanted question is left out. */
void lb_engine_answer(lb_engine *engine, const lb_engine_clip *clip, const lb_engine_question *questions, int n,
                      lb_engine_callbacks callbacks);

/* probabilities: [n], sums to 1. */
void lb_softmax(const float *logits, int n, float *probabilities);

#endif
