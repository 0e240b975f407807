#include "nn/log.h"

#include "base/log.h"
#include "nn/device.h"

#include <ggml.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char last_error[512], error_before[512];
static void (*tap_fn)(const char *line, void *user);
static void *tap_user;

void lb_nn_route_log(int piece_level, const char *text, void *user) {
    (void)user;
    enum ggml_log_level level = (enum ggml_log_level)piece_level;
    static enum ggml_log_level previous = GGML_LOG_LEVEL_INFO;
    static char line[1024]; /* a line comes in pieces: GGML_LOG_LEVEL_CONT goes on with the last one */
    pthread_mutex_lock(&log_mutex);
    if (level == GGML_LOG_LEVEL_CONT)
        level = previous;
    previous = level;
    size_t used = strlen(line);
    snprintf(line + used, sizeof line - used, "%s", text);
    size_t length = strlen(line);
    if (length && (line[length - 1] == '\n' || length == sizeof line - 1)) {
        lb_devices_rename(line, sizeof line);
        if (tap_fn)
            tap_fn(line, tap_user);
        length = strlen(line);
        while (length && (line[length - 1] == '\n' || line[length - 1] == ' '))
            line[--length] = 0;
        if (level == GGML_LOG_LEVEL_ERROR && length) {
            memcpy(error_before, last_error, sizeof error_before);
            snprintf(last_error, sizeof last_error, "%.511s", line);
        }
        if (length)
            /* whoever fails reports the last error in its own message: once is enough */
            lb_log(level >= GGML_LOG_LEVEL_ERROR ? LB_LOG_INFO : LB_LOG_DEBUG, "ggml", "%s", line);
        line[0] = 0;
    }
    pthread_mutex_unlock(&log_mutex);
}

static void route(enum ggml_log_level level, const char *text, void *user) {
    lb_nn_route_log((int)level, text, user);
}

static void start_routing(void) {
    ggml_log_set(route, NULL);
}

void lb_nn_log_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_routing);
}

const char *lb_nn_last_log_error(void) {
    static _Thread_local char copy[sizeof error_before + sizeof last_error + 2];
    pthread_mutex_lock(&log_mutex);
    snprintf(copy, sizeof copy, "%.511s%s%.511s", error_before, error_before[0] ? "; " : "", last_error);
    error_before[0] = last_error[0] = 0;
    pthread_mutex_unlock(&log_mutex);
    return copy;
}

void lb_nn_log_tap(void (*fn)(const char *line, void *user), void *user) {
    pthread_mutex_lock(&log_mutex);
    tap_fn = fn;
    tap_user = user;
    pthread_mutex_unlock(&log_mutex);
}
