#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static lb_log_fn log_fn;
static void *log_user;

void lb_log_set(lb_log_fn fn, void *user) {
    log_fn = fn;
    log_user = user;
}

void lb_log(lb_log_level level, const char *stage, const char *format, ...) {
    if (!log_fn)
        return;
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    log_fn(level, stage, message, log_user);
}
