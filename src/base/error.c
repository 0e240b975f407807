#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *lb_status_text(lb_status status) {
    switch (status) {
#define LB_STATUS_CASE(code, text)                                                                                     \
    case LB_STATUS_##code:                                                                                             \
        return text;
        LB_STATUS_LIST(LB_STATUS_CASE)
#undef LB_STATUS_CASE
    }
    return "unknown status";
}

const char *lb_status_name(lb_status status) {
    switch (status) {
#define LB_STATUS_CASE(code, text)                                                                                     \
    case LB_STATUS_##code:                                                                                             \
        return #code;
        LB_STATUS_LIST(LB_STATUS_CASE)
#undef LB_STATUS_CASE
    }
    return "UNKNOWN";
}

/* A message is one line of valid UTF-8 whatever the paths and library texts in it were: control characters become
 * spaces, and a character that the end of the buffer cut in two is dropped. */
static void tidy(char *text) {
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    size_t length = strlen(text), tail = 0;
    while (tail < 4 && tail < length && ((unsigned char)text[length - 1 - tail] & 0xC0) == 0x80)
        tail++;
    if (tail >= length)
        return;
    unsigned char lead = (unsigned char)text[length - 1 - tail];
    size_t need = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (tail < need)
        text[length - 1 - tail] = 0;
}

lb_status lb_error_set(lb_error *error, lb_status status, const char *format, ...) {
    if (!error)
        return status;
    error->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    tidy(error->message);
    return status;
}

lb_status lb_error_context(lb_error *error, const char *format, ...) {
    if (!error)
        return LB_STATUS_INTERNAL;
    char message[sizeof error->message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    /* the cause is what matters: a path of 4 KiB gives way to it */
    const size_t length = strlen(error->message), most = sizeof message - (length < 1024 ? length : 1024) - 8;
    const bool cut = n >= 0 && (size_t)n > most;
    size_t used = n < 0 ? 0 : cut ? most : (size_t)n;
    while (cut && used && ((unsigned char)message[used] & 0xC0) == 0x80)
        used--;
    const char *between = cut ? "...: " : ": ";
    memcpy(message + used, between, strlen(between));
    used += strlen(between);
    const size_t room = sizeof message - used - 1, n_kept = length < room ? length : room;
    memcpy(message + used, error->message, n_kept);
    message[used + n_kept] = 0;
    memcpy(error->message, message, sizeof message);
    tidy(error->message);
    return error->status;
}

lb_status lb_error_add(lb_error *error, const char *format, ...) {
    if (!error)
        return LB_STATUS_INTERNAL;
    size_t used = strlen(error->message);
    va_list args;
    va_start(args, format);
    vsnprintf(error->message + used, sizeof error->message - used, format, args);
    va_end(args);
    tidy(error->message);
    return error->status;
}
