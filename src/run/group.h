/* A video's questions on their way through the engines.
 *
 *     lb_group_answer(lane, group, &error);    // error: of the clip, when there is none
 *     if (lb_group_is_open(group)) ...         // another lane is to go on with it
 *
 * Private to the run.
 */
#ifndef LB_RUN_GROUP_H
#define LB_RUN_GROUP_H

#include "run/lane.h"

typedef struct lb_group {
    size_t place; /* in the dataset */
    const lb_video_group *video;
    lb_clip *clip;                 /* NULL: not taken, or it cannot be read */
    lb_engine_question *questions; /* [video->n_questions]; NULL: not begun */
    char **cause;                  /* [n_questions] NULL, or: an engine died of it, and another is to try */
    bool doubted;                  /* there was such a one */
    unsigned tried;                /* bits of the lanes whose engines died of one */
    bool kept;                     /* what the models saw went into the cache's folder */
    int n_empty;                   /* the video's boxes without area */
    double lost_s;                 /* with engines that died of it */
    struct lb_group *next;         /* of those returned */
} lb_group;

/* Asks what has no answer yet; what cannot be asked is stored as failed. Where another lane lives, what this one cannot
 * answer stays open instead: all, when it is given up; what its engine died of, until a lane that is known to be sound
 * finds the same, or all have tried. */
void lb_group_answer(lb_lane *lane, lb_group *group, const lb_error *error);

/* Whether a question was left to another lane. */
bool lb_group_is_open(const lb_group *group);

void lb_group_free(lb_group *group); /* what it points to, but not the clip */

#endif
