#include "run/crops.h"

#include "base/error.h"
#include "image/tiles.h"
#include "memory/ledger.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MAX = 16 };

struct lb_crops {
    int n, size;
    lb_crop *crop;  /* [n] */
    uint8_t *tile;  /* [n][size][size][3] */
    bool *done;     /* [n] */
    int next;       /* first that nobody has begun */
    lb_error error; /* of the first that failed */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread[THREADS_MAX];
    int n_threads;
};

static size_t tile_bytes(const lb_crops *crops) {
    return (size_t)crops->size * (size_t)crops->size * 3;
}

const uint8_t *lb_crops_tile(const lb_crops *crops, int i) {
    return crops->tile + (size_t)i * tile_bytes(crops);
}

/* The mutex is held at the call and after it, not while the crop is cut. False: nothing is left to begin. */
static bool cut_next(lb_crops *crops) {
    if (crops->next == crops->n || crops->error.status != LB_STATUS_OK)
        return false;
    const int i = crops->next++;
    pthread_mutex_unlock(&crops->mutex);
    lb_error error = {0};
    lb_status status = lb_tile_crop(crops->crop[i].frame, crops->crop[i].box, crops->size,
                                    crops->tile + (size_t)i * tile_bytes(crops), &error);
    pthread_mutex_lock(&crops->mutex);
    if (status != LB_STATUS_OK && crops->error.status == LB_STATUS_OK)
        crops->error = error;
    crops->done[i] = true;
    pthread_cond_broadcast(&crops->changed);
    return true;
}

static void *work(void *user) {
    lb_crops *crops = user;
    pthread_mutex_lock(&crops->mutex);
    while (cut_next(crops))
        ;
    pthread_mutex_unlock(&crops->mutex);
    return NULL;
}

lb_status lb_crops_start(const lb_crop *crop, int n, int size, int n_threads, lb_crops **out, lb_error *error) {
    *out = NULL;
    lb_crops *crops = calloc(1, sizeof *crops);
    if (!crops)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for crops");
    crops->size = size;
    pthread_mutex_init(&crops->mutex, NULL);
    pthread_cond_init(&crops->changed, NULL);
    crops->crop = malloc((size_t)n * sizeof *crops->crop + 1);
    crops->done = calloc((size_t)n + 1, sizeof *crops->done);
    crops->tile = malloc((size_t)n * tile_bytes(crops) + 1);
    if (!crops->crop || !crops->done || !crops->tile) {
        lb_crops_free(crops);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d crops", n);
    }
    if (n > 0)
        memcpy(crops->crop, crop, (size_t)n * sizeof *crop);
    crops->n = n;
    lb_ledger_add(LB_COMPONENT_FRAMES, (size_t)n * tile_bytes(crops));
    for (int i = 0; i < n_threads && i < n && i < THREADS_MAX; i++)
        if (pthread_create(&crops->thread[crops->n_threads], NULL, work, crops) == 0)
            crops->n_threads++;
    *out = crops;
    return LB_STATUS_OK;
}

lb_status lb_crops_wait(lb_crops *crops, int i, lb_error *error) {
    pthread_mutex_lock(&crops->mutex);
    while (!crops->done[i] && crops->error.status == LB_STATUS_OK)
        if (!cut_next(crops))
            pthread_cond_wait(&crops->changed, &crops->mutex);
    const lb_error failure = crops->error;
    pthread_mutex_unlock(&crops->mutex);
    if (failure.status != LB_STATUS_OK && error)
        *error = failure;
    return failure.status;
}

void lb_crops_free(lb_crops *crops) {
    if (!crops)
        return;
    pthread_mutex_lock(&crops->mutex);
    crops->next = crops->n; /* what nobody has begun is not wanted any more */
    pthread_mutex_unlock(&crops->mutex);
    for (int i = 0; i < crops->n_threads; i++)
        pthread_join(crops->thread[i], NULL);
    lb_ledger_sub(LB_COMPONENT_FRAMES, (size_t)crops->n * tile_bytes(crops));
    pthread_mutex_destroy(&crops->mutex);
    pthread_cond_destroy(&crops->changed);
    free(crops->crop);
    free(crops->done);
    free(crops->tile);
    free(crops);
}
