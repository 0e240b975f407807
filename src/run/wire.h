/* Messages between lowbeam and its engine child: JSON over a socket pair, with file descriptors beside it where they
 * are needed. Both ends are the same binary, so there is no version to agree on.
 *
 *     lb_wire_send(fd, json_pack("{s:s}", "type", "stop"), NULL, &error);        // takes the object
 *     json_t *message;
 *     lb_wire_fds passed;
 *     lb_wire_receive(fd, &message, &passed, &error);                          // CHILD_DIED: the other end is gone
 */
#ifndef LB_RUN_WIRE_H
#define LB_RUN_WIRE_H

#include "lowbeam/status.h"

#include <jansson.h>
#include <stdbool.h>

enum { LB_WIRE_FDS_MAX = 4 };
typedef struct lb_wire_fds {
    int n, fd[LB_WIRE_FDS_MAX];
} lb_wire_fds;

/* Takes message over, also on failure; passed stay the caller's, NULL: none. Errors: INTERNAL (message NULL),
 * DOES_NOT_FIT, CHILD_DIED. */
lb_status lb_wire_send(int fd, json_t *message, const lb_wire_fds *passed, lb_error *error);

/* Waits for one message. message: the caller's, json_decref. passed: the caller's to close.
 * Errors: CHILD_DIED (the other end closed), INTERRUPTED (a signal came before the message began),
 * OUT_OF_MEMORY, FORMAT; nothing is passed then. */
lb_status lb_wire_receive(int fd, json_t **message, lb_wire_fds *passed, lb_error *error);

void lb_wire_fds_close(lb_wire_fds *passed); /* n is 0 then */

/* Is there something to receive now? (That the other end closed counts.) */
bool lb_wire_pending(int fd);

/* The same, waiting for it so long at most; false also when a signal comes. */
bool lb_wire_wait(int fd, int wait_ms);

/* Any bytes (a path need not be UTF-8, which JSON's strings are) as a JSON string and back. NULL becomes null and the
 * other way round. lb_wire_bytes_get: the caller frees it; NULL also when there is no memory. */
json_t *lb_wire_bytes(const char *bytes);
char *lb_wire_bytes_get(const json_t *value);

/* Appends; a list that cannot be made whole becomes NULL, and so does the message that it would stand in: a question
 * must not be asked with a choice less. */
void lb_wire_append(json_t **array, json_t *value);

/* Sizes in bytes as a list of numbers and back: how many there were, most at most. */
json_t *lb_wire_sizes(const size_t *sizes, int n);
int lb_wire_sizes_get(const json_t *list, size_t *sizes, int most);

/* "type" of a message; "" when it has none. */
const char *lb_wire_type(const json_t *message);

#endif
