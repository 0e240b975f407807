/* The process that holds the GPU. ggml and CUDA abort where others return an error, so they run in a child of lowbeam's
 * own: `lowbeam` starts itself again as an engine child, talks to it over a socket (wire.h), and replaces it when it
 * dies.
 *
 * parent -> child: {"type":"open", settings}, {"type":"video", ...} with the descriptors of the tiles
 *                  and, for the detector, of the frames and their pictures, {"type":"stop"}
 * child -> parent: {"type":"ready"} or {"type":"error"}; for a video {"type":"reply"}..., {"type":"done"};
 *                  {"type":"abort", "cause"} when a library aborts
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

typedef struct lb_child_params {
    lb_engine_params engine;
    const char *program; /* the lowbeam program; NULL: the running one */
} lb_child_params;

/* What the child says of itself, newest message first. */
typedef struct lb_child_state {
    char device[64], device_description[128];
    int image_size;
    int n_parallel;
    int shortest_edge, longest_edge; /* of the detector's pictures; 0: no detector */
    size_t allocated_bytes, reserved_bytes;
    size_t model_allocated_bytes, model_reserved_bytes; /* when the VLM was loaded, before the detector */
} lb_child_state;

/* Starts a child and waits until it has loaded the models. Errors: what the child reported, or CHILD_DIED with the
 * cause; INTERRUPTED when *cancel became true. */
lb_status lb_child_start(const lb_child_params *params, const atomic_bool *cancel, lb_child **child, lb_error *error);
const lb_child_state *lb_child_get_state(const lb_child *child);

/* Answers a video's questions, as lb_engine_answer does. Returns OK when the child went through all of them (each with
 * its own status) or was stopped; CHILD_DIED with the cause when it died on the way: replies until then count. */
lb_status lb_child_answer(lb_child *child, const lb_clip *clip, const char *clip_dump_dir,
                          const lb_engine_question *questions, int n, void (*reply)(const lb_engine_reply *, void *),
                          void *user, const atomic_bool *cancel, lb_error *error);

/* Ends it, waits for it, frees. NULL is allowed. */
void lb_child_stop(lb_child *child);

#endif
