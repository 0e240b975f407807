/* The process that holds the GPU. ggml and CUDA abort where others return an error, so they run in a child of lowbeam's
 * own: `lowbeam` starts itself again as an engine child, talks to it over a socket (wire.h), and replaces it when it
 * dies.
 *
 * parent -> child: {"type":"open", settings}, {"type":"video", ...} with the descriptors of the tiles
 *                  and, for the detector, of the frames and their pictures, {"type":"memory"},
 *                  {"type":"stop"}
 * child -> parent: {"type":"order"}: the devices, in the order in which they are used; then {"type":"devices"}: another
 *                  child is wanted, which sees so many of them (child_devices.h), and that was all; or {"type":"plan"},
 *                  {"type":"ready"} or {"type":"error"}; {"type":"memory"}; for a video {"type":"reply"}...,
 *                  {"type":"done"}; {"type":"abort", "cause"} when a library aborts
 */
#ifndef LB_RUN_CHILD_H
#define LB_RUN_CHILD_H

#include "lowbeam/status.h"
#include "run/clip.h"
#include "run/engine.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The child's main function: serves the socket until it closes. Returns the exit status. */
int lb_child_main(int fd);

#define LB_CHILD_VERB "engine-child" /* argv[1] that makes lowbeam an engine child; argv[2]: the socket's number */

typedef struct lb_child lb_child;

struct lb_child_state;

typedef struct lb_child_params {
    lb_engine_params engine;
    const char *program; /* the lowbeam program; NULL: the running one */
    const char *trace;   /* file that the ledger's events are appended to; NULL: none */
    bool plan_only;      /* make the plan and load nothing */
    /* Called when the plan is made, before anything is loaded; NULL: nobody wants to know. check before planned: what
     * is not OK ends the child, and lb_child_start returns it. */
    lb_status (*check)(const struct lb_child_state *state, void *user, lb_error *error);
    void (*planned)(const struct lb_child_state *state, void *user);
    void *user;
    lb_device_order *order; /* of the run's children: the first one's plan fills it, the others are told; NULL: each
                               finds its own */
} lb_child_params;

/* What the child says of itself, newest message first. */
typedef struct lb_child_state {
    char device[64], device_description[128];
    int image_size;
    int n_parallel;
    char vision[64];                 /* what of the plan can change what the models see in its last digits */
    int shortest_edge, longest_edge; /* of the detector's pictures; 0: no detector */
    size_t allocated_bytes, reserved_bytes;
    size_t model_allocated_bytes, model_reserved_bytes; /* when the VLM was loaded, before the detector */
    char *plan_text, *plan_json; /* the memory plan; NULL: none was asked for. Good until lb_child_stop */
    bool fits, changes_answers;  /* of the plan */
    size_t host_bytes;           /* of the plan: weights in host memory and a video's embeddings */
    char *adapted;               /* what the plan does to fit, "; " between; "" for nothing */
    int n_devices;               /* that the plan uses, the first of the order; 0: no plan */
    size_t clip_bytes;           /* of the plan: frames and tiles of the largest video */
    char numbers[160];           /* of the plan: what of it answers can follow from; "": no plan */
} lb_child_state;

/* Has a child make the memory plan of params and end: what of *plan is a plan's, with plan_text and plan_json from
 * malloc. Errors: DOES_NOT_FIT (all is there all the same), and what keeps a plan from being made. */
lb_status lb_child_plan(const lb_child_params *params, const atomic_bool *cancel, lb_child_state *plan,
                        lb_error *error);

/* What was planned against what was measured, as text and as JSON, from malloc; NULL where there is no plan. */
lb_status lb_child_memory(lb_child *child, const atomic_bool *cancel, char **text, char **json, lb_error *error);

/* Starts a child and waits until it has loaded the models. Errors: what the child reported, or CHILD_DIED with the
 * cause; INTERRUPTED when *cancel became true. */
lb_status lb_child_start(const lb_child_params *params, const atomic_bool *cancel, lb_child **child, lb_error *error);
const lb_child_state *lb_child_get_state(const lb_child *child);

/* Answers a video's questions, as lb_engine_answer does. left_s: see lb_engine_clip. Returns OK when the child went
 * through all of them (each with its own status) or was stopped; seen: becomes a descriptor of what the models saw
 * (lb_sight_write's, the caller's), or -1; NULL: not wanted. CHILD_DIED with the cause when it died on the way: replies
 * until then count. */
lb_status lb_child_answer(lb_child *child, const lb_clip *clip, double left_s, const char *clip_dump_dir,
                          const lb_engine_question *questions, int n, void (*reply)(const lb_engine_reply *, void *),
                          void *user, int *seen, const atomic_bool *cancel, lb_error *error);

/* Ends it, waits for it, frees. NULL is allowed. */
void lb_child_stop(lb_child *child);

#endif
