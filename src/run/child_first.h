/* Does something in a process of its own first, to see whether it comes back: loading a model file that is not trusted,
 * since ggml and libllama abort on some that lowbeam cannot tell from good ones beforehand. (lowbeam answer has its
 * models in the engine process always, and needs none of this.)
 *
 *     if (lb_child_first(load_detector, &params, &error) != LB_STATUS_OK)
 *         fprintf(stderr, "%s\n", error.message);     // "... (SIGABRT): GGML_ASSERT(...) failed"
 */
#ifndef LB_RUN_CHILD_FIRST_H
#define LB_RUN_CHILD_FIRST_H

#include "lowbeam/status.h"

#include <stdatomic.h>

typedef lb_status (*lb_child_first_fn)(void *user, lb_error *error);

/* Calls fn in a child and waits for it; nothing that fn does is seen here but its status and message. Call it before a
 * thread is started and before a GPU is touched: CUDA does not survive fork(). cancel: NULL, or ends the child when it
 * becomes true. Errors: fn's own; CHILD_DIED with the signal and the child's last line on stderr; INTERRUPTED; IO. */
lb_status lb_child_first(lb_child_first_fn fn, void *user, const atomic_bool *cancel, lb_error *error);

#endif
