/* Clips made ready ahead of the engine: while the GPU answers one video, the CPU decodes and cuts the next.
 *
 *     lb_prefetch *prefetch;
 *     lb_prefetch_start(jobs, n, &params, &prefetch, &error);
 *     for (size_t i = 0; i < n; i++) {
 *         lb_clip *clip;
 *         if (lb_prefetch_take(prefetch, i, &clip, &error) == LB_STATUS_OK) ...    // in order, each once
 *         lb_prefetch_give_back(prefetch, clip);
 *     }
 *     lb_prefetch_stop(prefetch);
 */
#ifndef LB_RUN_PREFETCH_H
#define LB_RUN_PREFETCH_H

#include "run/clip.h"

#include <stdatomic.h>

typedef struct lb_prefetch lb_prefetch;

typedef struct lb_prefetch_params {
    lb_clip_params clip;
    const char *base; /* folder of the videos */
    bool allow_outside;
    int n_threads;             /* clips decoded at once, 16 at most; default 2 */
    const atomic_bool *cancel; /* true: lb_prefetch_take gives up with INTERRUPTED; NULL: never */
    int n_ahead;               /* clips ready or in work beyond the one being answered; default 3 */
    struct lb_sights *sights;  /* a video that is found there is not read: a clip without frames; NULL: none */
    size_t max_bytes;          /* of clips in work, ready or taken and not given back yet; 0: no limit. The clip that is
                                  taken next always has room when no other is out: those behind it make way, and are
                                  made again. With a limit, who has a clip gives it back before taking another; several
                                  who do so never wait for each other in a circle. */
} lb_prefetch_params;

/* video_paths: [n], as the questions file has them, borrowed until lb_prefetch_stop. params is copied. */
lb_status lb_prefetch_start(const char *const *video_paths, size_t n, const lb_prefetch_params *params,
                            lb_prefetch **prefetch, lb_error *error);

/* Another max_bytes from now on; what is there already stays until it is taken or makes way. */
void lb_prefetch_set_limit(lb_prefetch *prefetch, size_t max_bytes);

/* Waits for clip i; clips are taken in order. Errors: those of lb_video_path and lb_clip_prepare; DOES_NOT_FIT: this
 * clip alone is larger than max_bytes. */
lb_status lb_prefetch_take(lb_prefetch *prefetch, size_t i, lb_clip **clip, lb_error *error);

/* The same, but gives up with INTERRUPTED, and clip i can be taken again, when *unless is true while it waits. */
lb_status lb_prefetch_take_unless(lb_prefetch *prefetch, size_t i, const atomic_bool *unless, lb_clip **clip,
                                  lb_error *error);

/* Frees a clip on one of the threads: a hundred megabytes take 40 ms to unmap here, which the engine would wait for.
 * NULL is allowed. */
void lb_prefetch_give_back(lb_prefetch *prefetch, lb_clip *clip);

/* Stops what is in work, frees what nobody took. NULL is allowed. */
void lb_prefetch_stop(lb_prefetch *prefetch);

#endif
