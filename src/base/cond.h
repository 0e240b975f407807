/* Conditions that wait by the monotonic clock, which nobody sets back during a wait. */
#ifndef LB_BASE_COND_H
#define LB_BASE_COND_H

#include <pthread.h>
#include <time.h>

static inline void lb_cond_init(pthread_cond_t *cond) {
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &clock);
    pthread_condattr_destroy(&clock);
}

/* Waits a tenth of a second at most: a signal handler, which sets a flag, cannot wake a condition. */
static inline void lb_cond_wait_a_while(pthread_cond_t *cond, pthread_mutex_t *mutex) {
    struct timespec soon;
    clock_gettime(CLOCK_MONOTONIC, &soon);
    soon.tv_nsec += 100 * 1000 * 1000;
    soon.tv_sec += soon.tv_nsec / 1000000000;
    soon.tv_nsec %= 1000000000;
    pthread_cond_timedwait(cond, mutex, &soon);
}

#endif
