/* Status codes and error messages of lowbeam.
 *
 * Takes: nothing. Gives: the one return type of every function that can fail, and the message that goes with it.
 *
 *     lb_error error = {0};
 *     if (lb_something_open(path, &thing, &error) != LB_STATUS_OK)
 *         fprintf(stderr, "%s\n", error.message);      // one line, says what to do
 *
 * Results go through out-parameters; on any status but LB_STATUS_OK the outputs are NULL or zero, unless a function
 * says otherwise. A message is written once, where the cause is known; callers add context in front of it.
 */
#ifndef LOWBEAM_STATUS_H
#define LOWBEAM_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#ifndef LB_API
#define LB_API __attribute__((visibility("default")))
#endif

/* X(code, text) */
#define LB_STATUS_LIST(X)                                                                                              \
    X(OK, "ok")                                                                                                        \
    X(INVALID_ARGUMENT, "invalid argument")                                                                            \
    X(NOT_FOUND, "not found")                                                                                          \
    X(IO, "input/output error")                                                                                        \
    X(FORMAT, "malformed file")                                                                                        \
    X(UNSUPPORTED, "not supported")                                                                                    \
    X(REFUSED, "refused")                                                                                              \
    X(OUT_OF_MEMORY, "out of memory")                                                                                  \
    X(DOES_NOT_FIT, "does not fit")                                                                                    \
    X(TIMEOUT, "time limit exceeded")                                                                                  \
    X(INTERRUPTED, "interrupted")                                                                                      \
    X(CHILD_DIED, "helper process died")                                                                               \
    X(BACKEND, "compute backend failed")                                                                               \
    X(NOT_FINITE, "result is not finite")                                                                              \
    X(INTERNAL, "internal error")

typedef enum lb_status {
#define LB_STATUS_ENUM(code, text) LB_STATUS_##code,
    LB_STATUS_LIST(LB_STATUS_ENUM)
#undef LB_STATUS_ENUM
} lb_status;

/* One failure in one line. Caller-owned, zero-initialised; every function accepts NULL instead. */
typedef struct lb_error {
    lb_status status;
    char message[2048]; /* UTF-8, without newline, cut at a character's boundary when too long */
} lb_error;

/* Constant text of a code, such as "not found". Never NULL. */
LB_API const char *lb_status_text(lb_status status);

/* Constant name of a code, such as "NOT_FOUND". Never NULL. */
LB_API const char *lb_status_name(lb_status status);

#ifdef __cplusplus
}
#endif
#endif
