#include "run/wire.h"

#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_MAX = 256 << 20 }; /* bytes; 5,000 questions of a video are about 5 MB */

static lb_status gone(lb_error *error) {
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "the other process is gone");
}

/* The length goes first, the descriptors beside it. */
/* The length and as much of the text as goes along: in one call, so that a process that is stopped between two does not
 * leave a reader in the middle of a message, who would wait for it whatever happens meanwhile. *done: bytes of text. */
static lb_status send_head(int fd, char *text, uint32_t n, const lb_wire_fds *passed, size_t *done, lb_error *error) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * LB_WIRE_FDS_MAX)];
    } control = {0};
    struct iovec part[2] = {{&n, sizeof n}, {text, n}};
    struct msghdr head = {.msg_iov = part, .msg_iovlen = 2};
    if (passed && passed->n > 0) {
        const size_t bytes = sizeof(int) * (size_t)passed->n;
        head.msg_control = control.bytes;
        head.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&head);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(c), passed->fd, bytes);
    }
    ssize_t sent;
    while ((sent = sendmsg(fd, &head, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    *done = sent > (ssize_t)sizeof n ? (size_t)sent - sizeof n : 0;
    return sent >= (ssize_t)sizeof n ? LB_STATUS_OK : gone(error);
}

lb_status lb_wire_send(int fd, json_t *message, const lb_wire_fds *passed, lb_error *error) {
    char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    json_decref(message);
    if (!text)
        return lb_error_set(error, LB_STATUS_INTERNAL, "a message between the processes cannot be written");
    size_t n = strlen(text), done = 0;
    lb_status status = n > MESSAGE_MAX ? lb_error_set(error, LB_STATUS_DOES_NOT_FIT, "a message of %zu bytes", n)
                                       : send_head(fd, text, (uint32_t)n, passed, &done, error);
    while (done < n && status == LB_STATUS_OK) {
        ssize_t sent = send(fd, text + done, n - done, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            status = gone(error);
        else
            done += (size_t)sent;
    }
    free(text);
    return status;
}

static lb_status receive_head(int fd, uint32_t *n, lb_wire_fds *passed, lb_error *error) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * LB_WIRE_FDS_MAX)];
    } control = {0};
    struct iovec part = {n, sizeof *n};
    struct msghdr head = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(fd, &head, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    if (got < 0 && errno == EINTR)
        return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
    if (got != (ssize_t)sizeof *n)
        return gone(error);
    struct cmsghdr *c = CMSG_FIRSTHDR(&head);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        passed->n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(passed->fd, CMSG_DATA(c), sizeof(int) * (size_t)passed->n);
    }
    return LB_STATUS_OK;
}

void lb_wire_fds_close(lb_wire_fds *passed) {
    while (passed->n > 0)
        close(passed->fd[--passed->n]);
}

lb_status lb_wire_receive(int fd, json_t **message, lb_wire_fds *passed, lb_error *error) {
    *message = NULL;
    passed->n = 0;
    uint32_t n = 0;
    lb_status status = receive_head(fd, &n, passed, error);
    if (status != LB_STATUS_OK)
        return status;
    char *text = NULL;
    if (n > MESSAGE_MAX)
        status = lb_error_set(error, LB_STATUS_FORMAT, "a message between the processes claims %u bytes", n);
    else if (!(text = malloc((size_t)n + 1)))
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a message of %u bytes", n);
    for (size_t done = 0; done < n && status == LB_STATUS_OK;) {
        ssize_t got = recv(fd, text + done, n - done, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            status = gone(error);
        else
            done += (size_t)got;
    }
    if (status == LB_STATUS_OK) {
        json_error_t fault;
        *message = json_loadb(text, n, 0, &fault);
        if (!json_is_object(*message)) {
            json_decref(*message);
            *message = NULL;
            status =
                lb_error_set(error, LB_STATUS_FORMAT, "a message between the processes is malformed: %s", fault.text);
        }
    }
    free(text);
    if (status != LB_STATUS_OK)
        lb_wire_fds_close(passed);
    return status;
}

bool lb_wire_wait(int fd, int wait_ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, wait_ms) > 0;
}

bool lb_wire_pending(int fd) {
    return lb_wire_wait(fd, 0);
}

/* Each byte as the character of its number, U+0001 to U+00FF. */
json_t *lb_wire_bytes(const char *bytes) {
    if (!bytes)
        return json_null();
    char *text = malloc(2 * strlen(bytes) + 1), *to = text;
    if (!text)
        return NULL;
    for (; *bytes; bytes++) {
        unsigned char byte = (unsigned char)*bytes;
        if (byte >= 0x80)
            *to++ = (char)(0xC0 | byte >> 6);
        *to++ = (char)(byte >= 0x80 ? 0x80 | (byte & 0x3F) : byte);
    }
    json_t *value = json_stringn(text, (size_t)(to - text));
    free(text);
    return value;
}

char *lb_wire_bytes_get(const json_t *value) {
    const char *text = json_string_value(value);
    char *bytes = text ? malloc(strlen(text) + 1) : NULL, *to = bytes;
    if (!bytes)
        return NULL;
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte >= 0x80 && text[1])
            byte = (unsigned char)(byte << 6 | (*++text & 0x3F));
        *to++ = (char)byte;
    }
    *to = 0;
    return bytes;
}

void lb_wire_append(json_t **array, json_t *value) {
    if (json_array_append_new(*array, value) == 0)
        return;
    json_decref(*array);
    *array = NULL;
}

json_t *lb_wire_sizes(const size_t *sizes, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        lb_wire_append(&list, json_integer((json_int_t)sizes[i]));
    return list;
}

int lb_wire_sizes_get(const json_t *list, size_t *sizes, int most) {
    const int n = json_array_size(list) < (size_t)most ? (int)json_array_size(list) : most;
    for (int i = 0; i < n; i++)
        sizes[i] = (size_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

const char *lb_wire_type(const json_t *message) {
    const char *type = json_string_value(json_object_get(message, "type"));
    return type ? type : "";
}
