/* Seconds of the monotonic clock, for durations: it does not jump when the wall clock is set. */
#ifndef LB_BASE_TIME_H
#define LB_BASE_TIME_H

#include <time.h>

static inline double lb_now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
