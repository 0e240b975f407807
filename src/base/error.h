/* Writing an lb_error: the message is made once, where the cause is known; callers put context in front.
 *
 *     if (!file) return lb_error_set(error, LB_STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
 *     ...
 *     if (status != LB_STATUS_OK) return lb_error_context(error, "question %s", id);   // "question q7: clip.mp4: ..."
 */
#ifndef LB_BASE_ERROR_H
#define LB_BASE_ERROR_H

#include "lowbeam/status.h"

/* Sets code and message (printf format; control characters become spaces); returns status. error may be NULL. */
lb_status lb_error_set(lb_error *error, lb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " in front of the message; returns error's status (LB_STATUS_INTERNAL when error is NULL). */
lb_status lb_error_context(lb_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts more behind the message (printf format, as it is); returns error's status. */
lb_status lb_error_add(lb_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
