/* The conversation with lowbeam-decode (protocol.h). It reads files that come from strangers: nothing it says is
 * believed, each field is checked, and each wait has its limit. */
#include "video/client_internal.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "video/protocol.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    POLL_MS = 20,    /* how often the cancel flag is looked at while the decoder is silent */
    THREADS_MAX = 4, /* more gain little on clips of a few seconds, and several videos are decoded at once */
    CPU_S_LEAST = 30 * 60,
    LEAST_BYTES_A_SECOND = 1 << 20, /* of the slowest disk or network that a video is read from */
};

static lb_status send_all(lb_decoder *d, const void *message, size_t bytes, lb_error *error) {
    ssize_t sent;
    do
        sent = send(d->socket, message, bytes, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)bytes ? LB_STATUS_OK : lb_decoder_died(d, error);
}

/* The decoder's own word for its failure; its text is taken as text, its code only where it makes sense. */
static lb_status reported(const lb_decode_reply *reply, lb_error *error) {
    lb_status status = LB_STATUS_INTERNAL;
    switch (reply->status) {
    case LB_STATUS_IO:
    case LB_STATUS_FORMAT:
    case LB_STATUS_UNSUPPORTED:
    case LB_STATUS_OUT_OF_MEMORY:
        status = (lb_status)reply->status;
    }
    char text[sizeof reply->message + 1] = "";
    memcpy(text, reply->message, sizeof reply->message);
    for (char *c = text; *c; c++) /* FFmpeg may have quoted the file's bytes, and this goes into a UTF-8 CSV */
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return lb_error_set(error, status, "%s", *text ? text : "the decoder gave up and did not say why");
}

/* How long one step may take. Silence ends it sooner: a decoder at work says PROGRESS several times a second. */
typedef struct patience {
    const lb_frames_params *params;
    double until_s;
    const char *what; /* "its frames" ..., for the message */
} patience;

static patience patience_for(const lb_frames_params *params, double limit_s, const char *what) {
    return (patience){.params = params, .until_s = lb_now_s() + limit_s, .what = what};
}

/* Why not to wait any longer; OK: go on. */
static lb_status check_patience(const patience *p, double heard_s, lb_error *error) {
    if (p->params->cancel && *p->params->cancel)
        return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
    const double now_s = lb_now_s();
    if (now_s - heard_s > p->params->timeout_s)
        return lb_error_set(error, LB_STATUS_TIMEOUT, "the decoder made no progress for %g s", p->params->timeout_s);
    if (now_s > p->until_s)
        return lb_error_set(error, LB_STATUS_TIMEOUT,
                            "the decoder is at work, but not done with %s in the time that --decode-timeout %g gives",
                            p->what, p->params->timeout_s);
    return LB_STATUS_OK;
}

/* Waits for the next message but PROGRESS. */
static lb_status receive(lb_decoder *d, const patience *p, lb_decode_reply *reply, lb_error *error) {
    double heard_s = lb_now_s();
    for (;;) {
        lb_status status = check_patience(p, heard_s, error);
        if (status != LB_STATUS_OK)
            return status;
        struct pollfd ready = {.fd = d->socket, .events = POLLIN};
        if (poll(&ready, 1, POLL_MS) <= 0) {
            /* A wrapper's children can hold the socket open after it died: so look at the process, too. */
            siginfo_t info = {0};
            if (waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == d->pid) {
                if (poll(&ready, 1, 0) <= 0)
                    return lb_decoder_died(d, error);
            } else {
                continue;
            }
        }
        char buffer[sizeof *reply + 1]; /* one more, to see a message that is too long */
        const ssize_t bytes = recv(d->socket, buffer, sizeof buffer, 0);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes <= 0)
            return lb_decoder_died(d, error);
        memcpy(reply, buffer, sizeof *reply);
        if (bytes != sizeof *reply || reply->magic != LB_DECODE_MAGIC || reply->version != LB_DECODE_VERSION)
            return lb_error_set(error, LB_STATUS_CHILD_DIED,
                                "%s does not speak as this lowbeam's decoder does; use the one built with it",
                                d->program);
        if (reply->kind == LB_DECODE_ERROR)
            return reported(reply, error);
        if (reply->kind != LB_DECODE_PROGRESS)
            return LB_STATUS_OK;
        heard_s = lb_now_s();
    }
}

static lb_status out_of_turn(const lb_decode_reply *reply, lb_error *error) {
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder's answer makes no sense (message %d, %dx%d, slot %d)",
                        reply->kind, reply->width, reply->height, reply->slot);
}

static int n_threads(void) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 1 ? 1 : processors > THREADS_MAX ? THREADS_MAX : (int)processors;
}

static lb_status send_request(lb_decoder *d, const char *path, const lb_frames_params *params, lb_error *error) {
    double cpu_s = params->cpu_s;
    if (cpu_s <= 0)
        cpu_s = fmax(CPU_S_LEAST, n_threads() * params->timeout_s);
    d->cpu_s = cpu_s < INT32_MAX - 10 ? (int32_t)ceil(cpu_s) : INT32_MAX - 10;
    lb_decode_request request = {
        .magic = LB_DECODE_MAGIC,
        .version = LB_DECODE_VERSION,
        .parent_pid = getpid(),
        .threads = n_threads(),
        .cpu_s = d->cpu_s,
        .address_space_bytes = params->decoder_bytes,
        .address_space_max_bytes = params->decoder_bytes + params->max_bytes,
    };
    const char *dot = strrchr(path, '.');
    if (dot && strlen(dot + 1) < sizeof request.extension)
        for (int i = 0; dot[1 + i]; i++)
            request.extension[i] = isalnum((unsigned char)dot[1 + i]) ? (char)tolower((unsigned char)dot[1 + i]) : 'x';
    return send_all(d, &request, sizeof request, error);
}

/* Said once a process, not once a video. */
static void tell_unconfined(const lb_decode_reply *reply) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (reply->filter_errno && !atomic_flag_test_and_set(&told))
        lb_log(LB_LOG_WARN, "video",
               "the kernel refuses the system call filter (seccomp: %s), so lowbeam-decode runs without it: limits on "
               "memory, time and open files hold, but a video made to take the decoder over could do what you can",
               strerror(reply->filter_errno));
}

static lb_status receive_header(lb_decoder *d, const lb_frames_params *params, lb_decode_reply *reply,
                                lb_error *error) {
    const double reading_s = (double)d->file_bytes / LEAST_BYTES_A_SECOND;
    const patience p = patience_for(params, params->timeout_s + reading_s, "counting the frames");
    lb_status status = receive(d, &p, reply, error);
    if (status != LB_STATUS_OK)
        return status;
    if (reply->kind != LB_DECODE_HEADER || reply->width < 1 || reply->height < 1 || reply->width > LB_DECODE_SIDE_MAX ||
        reply->height > LB_DECODE_SIDE_MAX || reply->n_total < 1 || reply->n_total > LB_DECODE_PACKETS_MAX ||
        !(reply->fps >= 0 && isfinite(reply->fps)))
        return out_of_turn(reply, error);
    tell_unconfined(reply);
    return LB_STATUS_OK;
}

static lb_status send_go(lb_decoder *d, const lb_frames_params *params, const lb_frames *frames, lb_error *error) {
    /* Until now the frames' memory was not needed and not allowed. A decoder without such a limit (one built with a
     * sanitizer) gets none; where raising it fails, the decoder says that it cannot map the memory. */
    const rlim_t bytes = params->decoder_bytes + frames->data_bytes;
    struct rlimit now;
    if (d->pid > 0 && prlimit(d->pid, RLIMIT_AS, NULL, &now) == 0 && now.rlim_cur <= params->decoder_bytes)
        prlimit(d->pid, RLIMIT_AS, &(struct rlimit){bytes, bytes}, NULL);
    lb_decode_go go = {.magic = LB_DECODE_MAGIC, .version = LB_DECODE_VERSION, .n_frames = frames->n_frames};
    /* of what the decoder takes for one frame nothing is known before it has taken it: a limit that is over, too, gives
     * one */
    if (params->enough_s > 0)
        go.limit_s = fmax(params->enough_s - (lb_now_s() - d->start_s), 1e-6);
    const size_t index_bytes = (size_t)frames->n_frames * sizeof *go.index;
    memcpy(go.index, frames->index, index_bytes);
    return send_all(d, &go, offsetof(lb_decode_go, index) + index_bytes, error);
}

/* Slots come in order, since the indices ascend; where there is a limit, some are left out, and a decoder that does not
 * keep to it is not waited for once there is a frame. */
static lb_status receive_frames(lb_decoder *d, const lb_frames_params *params, lb_frames *frames, lb_error *error) {
    enum { LATE_PERCENT = 10 };
    const double enough_s = d->start_s + params->enough_s * (1 + LATE_PERCENT / 100.0);
    const bool limited = params->enough_s > 0;
    lb_decode_reply reply = {0};
    lb_status status = LB_STATUS_OK;
    int n = 0, next = 0; /* there; the least slot that may come */
    for (;;) {
        char what[40];
        snprintf(what, sizeof what, "frame %d of %d", next + 1, frames->n_frames);
        patience p = patience_for(params, params->timeout_s, next < frames->n_frames ? what : "its last word");
        const bool hurries = limited && n > 0 && enough_s < p.until_s;
        if (hurries)
            p.until_s = enough_s;
        status = receive(d, &p, &reply, error);
        if (hurries && status == LB_STATUS_TIMEOUT)
            return LB_STATUS_OK;
        if (status != LB_STATUS_OK)
            return status;
        if (reply.kind == LB_DECODE_DONE && n > 0 && (limited || n == frames->n_frames))
            return LB_STATUS_OK;
        if (reply.kind != LB_DECODE_FRAME || reply.slot < next || reply.slot >= frames->n_frames ||
            (!limited && reply.slot != next) || !isfinite(reply.time_s))
            return out_of_turn(&reply, error);
        d->there[reply.slot] = true;
        frames->time_s[reply.slot] = reply.time_s;
        next = reply.slot + 1;
        n++;
    }
}

lb_status lb_decoder_converse(lb_decoder *d, const char *path, const lb_frames_params *params, lb_frames *frames,
                              lb_error *error) {
    lb_decode_reply reply;
    lb_status status = send_request(d, path, params, error);
    if (status != LB_STATUS_OK || (status = receive_header(d, params, &reply, error)) != LB_STATUS_OK)
        return status;
    frames->n_total = reply.n_total;
    frames->fps = reply.fps;
    if (params->header_only) {
        frames->width = reply.width;
        frames->height = reply.height;
        return lb_frame_indices(frames->n_total, frames->fps, params, frames->index, error);
    }
    if ((status = lb_frame_indices(frames->n_total, frames->fps, params, frames->index, error)) != LB_STATUS_OK ||
        (status = lb_frames_map(frames, reply.width, reply.height, params, false, error)) != LB_STATUS_OK ||
        (status = send_go(d, params, frames, error)) != LB_STATUS_OK)
        return status;
    return receive_frames(d, params, frames, error);
}
