/* The memory plan: what will be held where, and when, before anything is loaded; and of all the ways to fit a budget
 * the first that does.
 *
 * Takes: budgets of the devices, the work (tiles, tokens, frames of the largest video), and how large the parts are for
 * a given choice, which the stages tell through lb_plan_sizer. Gives: a choice and a table of bytes by device, phase
 * and component, whose peak is within the budget, or LB_STATUS_DOES_NOT_FIT with the smallest budget that would do.
 *
 *     lb_plan plan;
 *     lb_status status = lb_plan_make(&request, &sizer, &plan, &error);
 *     char *text = lb_plan_text(&plan);           // the table, for people
 *     ...
 *     open everything as plan.choice says
 *
 * The arithmetic stands in docs/memory.md so that it can be checked by hand.
 */
#ifndef LB_MEMORY_PLAN_H
#define LB_MEMORY_PLAN_H

#include "lowbeam/status.h"
#include "memory/ledger.h"

#include <stdbool.h>
#include <stdint.h>

/* What the user allows beyond what leaves the answers as they are (--allow). */
enum {
    LB_ALLOW_KV_Q8 = 1 << 0,
    LB_ALLOW_WEIGHTS_Q8 = 1 << 1,
    LB_ALLOW_WEIGHTS_Q4 = 1 << 2,
    LB_ALLOW_FEWER_TILES = 1 << 3,
    LB_ALLOW_FEWER_CROPS = 1 << 4,
};

typedef struct lb_plan_device {
    char name[64], description[128];
    bool is_cpu;
    size_t total_bytes, free_bytes;
    size_t budget_bytes;   /* of this process, everything counted */
    size_t context_bytes;  /* what the driver takes for a process before anything is allocated */
    bool context_measured; /* else assumed, from a table */
} lb_plan_device;

typedef struct lb_plan_request {
    int n_devices;
    lb_plan_device device[LB_DEVICES_MAX];
    bool more_devices; /* there are others: only what these hold as it is counts as fitting, no way to save is tried */
    unsigned allow;    /* LB_ALLOW_* */
    /* The work: of the largest video in the questions file. */
    int n_frames, tiles_per_frame; /* tiles: with the thumbnail, without crops */
    int crops_per_frame;           /* 0 without a detector */
    int tokens_per_tile;
    int text_tokens;     /* of the shared beginning, pictures not counted */
    int question_tokens; /* of the longest question, all that follows the shared beginning */
    int new_tokens;      /* most to generate */
    int n_layer;         /* of the language model */
    bool detector;
    /* Where the search starts: what is used when there is room enough. */
    int tile_batch, frame_batch, n_ubatch, n_parallel;
    bool fixed_ubatch; /* n_ubatch is what the user asked for: never more */
    bool reuse;        /* false: each question's whole prompt stands in the cache, one at a time */
    int weight_bits;   /* 0: the file as it is; 8: take 8-bit weights in any case (--load_in_8bit) */
    bool kv_q8;        /* take a q8_0 KV cache in any case (--kv-bits 8) */
} lb_plan_request;

typedef struct lb_plan_choice {
    int tile_batch, frame_batch, n_ubatch, n_parallel;
    int n_cells;                                   /* of the KV cache */
    bool rest_compute, rest_context, rest_weights; /* see lb_vlm_layout */
    int n_host_layers;
    bool kv_q8;
    int weight_bits;                      /* 0: the file as it is; 8, 4 */
    int tiles_per_frame, crops_per_frame; /* fewer than requested only where that is allowed */
    int vision_device;
    int n_devices;                   /* used */
    int n_layers_on[LB_DEVICES_MAX]; /* the output counts as one */
} lb_plan_choice;

/* Bytes that the parts take for a choice; by device, as far as they are on one. */
typedef struct lb_plan_sizes {
    size_t language_weights[LB_DEVICES_MAX], kv[LB_DEVICES_MAX], language_compute[LB_DEVICES_MAX];
    size_t language_pool[LB_DEVICES_MAX]; /* of the libraries while the language model works */
    size_t churn[LB_DEVICES_MAX];         /* what the driver keeps where buffers come and go */
    size_t host_layer_weights;
    size_t vision_weights, vision_compute, vision_pool;
    size_t detector_weights;                   /* without the text encoder's */
    size_t detector_text;                      /* text features, always there */
    size_t text_encoder, text_encoder_compute; /* weights and activations while labels are set: at load */
    size_t detector_compute, detector_pool;
} lb_plan_sizes;

typedef struct lb_plan_sizer {
    void *user;
    lb_status (*sizes)(void *user, const lb_plan_choice *choice, lb_plan_sizes *sizes, lb_error *error);
} lb_plan_sizer;

enum { LB_PLAN_STEPS_MAX = 64 };

typedef struct lb_plan {
    lb_plan_request request;
    lb_plan_choice choice;
    size_t bytes[LB_DEVICES_MAX][LB_PHASE_COUNT][LB_COMPONENT_COUNT]; /* predicted */
    size_t peak_bytes[LB_DEVICES_MAX];
    lb_phase peak_phase[LB_DEVICES_MAX];
    size_t host_bytes[LB_COMPONENT_COUNT]; /* expected in host memory: HOST_WEIGHTS, EMBEDDINGS, FRAMES */
    size_t clip_bytes;                     /* in host memory: frames and tiles of the largest video */
    bool fits;
    size_t smallest_bytes; /* where it does not fit: the budget, of each device, that would do with what is allowed */
    int n_tiles, n_tokens; /* of the largest video, crops included; tokens: its longest prompt */
    int n_steps;
    char step[LB_PLAN_STEPS_MAX][160]; /* what was done to fit, and why, in the order in which it was done */
    bool changes_answers;              /* one of them may */
} lb_plan;

/* Errors: DOES_NOT_FIT (plan is filled in all the same, for the tightest choice), and those of the sizer. */
lb_status lb_plan_make(const lb_plan_request *request, const lb_plan_sizer *sizer, lb_plan *plan, lb_error *error);

/* Cells of the KV cache for a choice: the shared beginning once, then n_parallel questions with their answers. */
int lb_plan_cells(const lb_plan_request *request, const lb_plan_choice *choice);

/* The plan as a table for people, or as one JSON document; from malloc, NULL when there is no memory. */
char *lb_plan_text(const lb_plan *plan);
char *lb_plan_json(const lb_plan *plan);

/* What was predicted against what the ledger saw and the device said. used: [n_devices][LB_PHASE_COUNT] most bytes that
 * the device says this process held in a phase, 0 where it does not say. */
char *lb_plan_comparison_text(const lb_plan *plan, const size_t (*used)[LB_PHASE_COUNT]);
char *lb_plan_comparison_json(const lb_plan *plan, const size_t (*used)[LB_PHASE_COUNT]);

/* "22GiB,10GiB": budgets of devices, vram [LB_DEVICES_MAX]. "kv-q8,fewer-crops": LB_ALLOW_*. Errors: INVALID_ARGUMENT.
 */
lb_status lb_plan_vram_parse(const char *text, size_t *vram, int *n, lb_error *error);
lb_status lb_plan_allow_parse(const char *text, unsigned *allow, lb_error *error);

/* "22GiB", "800MiB", "6.5GB" (10^9), "123456" -> bytes. Errors: INVALID_ARGUMENT. */
lb_status lb_bytes_parse(const char *option, const char *text, size_t *bytes, lb_error *error);

#endif
