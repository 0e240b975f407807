/* The videos that are still to be asked about, for several lanes: each takes the next one, and what a lane that is
 * given up has not answered goes to another. Clips come from lb_prefetch, in order, by one lane at a time.
 *
 *     lb_group *group;
 *     while (lb_queue_next(lane, &group, &error)) {
 *         ...                                          // group->clip NULL: error says why
 *         lb_queue_done(lane, group);                  // or lb_queue_return: for another lane
 *     }
 *
 * A lane that has a clip never waits for another one here, so that clips under a limit of bytes cannot hold each other
 * up: one that waits for a clip goes on with what was returned. Private to the run.
 */
#ifndef LB_RUN_QUEUE_H
#define LB_RUN_QUEUE_H

#include "run/group.h"
#include "run/prefetch.h"

struct lb_run;

typedef struct lb_queue {
    lb_group *group; /* [n] those that are asked, in the file's order */
    const char **path;
    size_t n, next;     /* next: the first that nobody took yet */
    bool taking;        /* a lane waits for the next clip */
    lb_group *returned; /* taken and not answered to the end, in the order of their return */
    int n_in_work;
    char *base; /* the questions file's path; its folder is where videos are, unless another is given */
    lb_prefetch *prefetch;
} lb_queue;

/* Finds what is to be asked. Errors: OUT_OF_MEMORY. */
lb_status lb_queue_open(struct lb_run *r, lb_error *error);
/* Starts to make the clips ready, for all lanes, as the first one's engine takes them. Errors: lb_prefetch_start's. */
lb_status lb_queue_start(struct lb_run *r, lb_error *error);
void lb_queue_close(struct lb_run *r); /* when no lane works any more */

/* The next video for this lane; waits while others may still return one. False: there is nothing for it any more.
 * error: of the video, when group->clip is NULL, with status INTERRUPTED when the run was. A first lane that was given
 * up gets what no other is left for, without clips. */
bool lb_queue_next(lb_lane *lane, lb_group **group, lb_error *error);
void lb_queue_done(lb_lane *lane, lb_group *group);
void lb_queue_return(lb_lane *lane, lb_group *group);

#endif
