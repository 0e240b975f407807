/* Starts lowbeam-decode for one video, checks what it says, and ends it whatever happens. */
#include "video/video_internal.h"

#include "base/error.h"
#include "base/time.h"
#include "video/protocol.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    POLL_MS = 20,         /* how often the cancel flag is looked at while the decoder is silent */
    THREADS_MAX = 4,      /* more gain little on clips of a few seconds, and several videos are decoded at once */
    CPU_S_MAX = 30 * 60,  /* for a file that makes progress for ever; the decoder's own death is the normal way */
    EXIT_GRACE_MS = 2000, /* after DONE; then it is killed */
};

/* What FFmpeg itself may need beside the frames: 16 references of 8K video in 10 bits, with a decoder thread each. */
static const uint64_t working_bytes = (uint64_t)4 << 30;

typedef struct decoder {
    pid_t pid; /* also its process group; 0: none */
    int socket;
    char program[PATH_MAX];
} decoder;

/* Puts name in place of path's last part; is that a program? path: room for PATH_MAX bytes. */
static bool beside(char *path, const char *name) {
    char *slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) + 1 + strlen(name) >= PATH_MAX)
        return false;
    strcpy(slash + 1, name);
    return access(path, X_OK) == 0;
}

static void find_program(const char *given, char path[PATH_MAX]) {
    const char *from_environment = getenv("LOWBEAM_DECODE");
    if (!given && from_environment && *from_environment)
        given = from_environment;
    if (given) {
        snprintf(path, PATH_MAX, "%s", given);
        return;
    }
    static const char name[] = "lowbeam-decode";
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - sizeof name - 1);
    if (length > 0) {
        path[length] = 0;
        if (beside(path, name))
            return;
    }
    /* a program of somebody else's that uses the library: the decoder lies beside that, or in bin/ when it is installed
     */
    Dl_info library;
    if (dladdr((void *)(uintptr_t)&lb_frames_read, &library) && library.dli_fname &&
        strlen(library.dli_fname) < PATH_MAX - sizeof "../bin/lowbeam-decode") {
        strcpy(path, library.dli_fname);
        if (beside(path, name) || beside(path, "../bin/lowbeam-decode"))
            return;
    }
    strcpy(path, name); /* posix_spawnp looks in PATH */
}

/* Descriptors must not stand in each other's way when they are moved to 3, 4 and 5: all come from above. */
static int moved_up(int fd) {
    return fcntl(fd, F_DUPFD_CLOEXEC, 16);
}

static lb_status start(decoder *d, int file_fd, int frames_fd, const char *given, lb_error *error) {
    int pair[2] = {-1, -1}, up[3] = {-1, -1, -1};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    find_program(given, d->program);

    lb_status status = LB_STATUS_OK;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) || (up[0] = moved_up(pair[1])) < 0 ||
        (up[1] = moved_up(file_fd)) < 0 || (up[2] = moved_up(frames_fd)) < 0) {
        status = lb_error_set(error, LB_STATUS_IO, "cannot start the decoder: %s", strerror(errno));
        goto cleanup;
    }
    /* Nothing of ours is inherited but the three descriptors; a group of its own, so that Ctrl-C in a terminal reaches
     * us alone and whatever a wrapper script started dies with it. */
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    int failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    failed |= posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    failed |= posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    failed |= posix_spawn_file_actions_adddup2(&actions, up[0], LB_DECODE_FD_SOCKET);
    failed |= posix_spawn_file_actions_adddup2(&actions, up[1], LB_DECODE_FD_FILE);
    failed |= posix_spawn_file_actions_adddup2(&actions, up[2], LB_DECODE_FD_FRAMES);
    failed |= posix_spawn_file_actions_addclosefrom_np(&actions, LB_DECODE_FD_END);
    failed |= posix_spawnattr_setsigdefault(&attributes, &all);
    failed |= posix_spawnattr_setsigmask(&attributes, &none);
    failed |= posix_spawnattr_setpgroup(&attributes, 0);
    failed |=
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    char *arguments[] = {d->program, NULL};
    if (!failed)
        failed = posix_spawnp(&d->pid, d->program, &actions, &attributes, arguments, environ);
    else
        failed = ENOMEM;
    if (failed) {
        d->pid = 0;
        status = lb_error_set(error, failed == ENOENT ? LB_STATUS_NOT_FOUND : LB_STATUS_IO,
                              "cannot start %s: %s; it is built with lowbeam, and $LOWBEAM_DECODE can name it",
                              d->program, strerror(failed));
        goto cleanup;
    }
    d->socket = pair[0];
    pair[0] = -1;

cleanup:
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    for (int i = 0; i < 3; i++)
        if (up[i] >= 0)
            close(up[i]);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return status;
}

/* Ends the decoder and its group and waits for it, so that it cannot touch the frames any more. Returns the wait
 * status, or -1 when it is unknown. */
static int stop(decoder *d, int grace_ms) {
    int wait_status = -1;
    if (d->socket >= 0)
        close(d->socket);
    d->socket = -1;
    if (d->pid <= 0)
        return -1;
    pid_t reaped = 0;
    for (const double until = lb_now_s() + 1e-3 * grace_ms; lb_now_s() < until;) {
        reaped = waitpid(d->pid, &wait_status, WNOHANG);
        if (reaped && !(reaped < 0 && errno == EINTR))
            break;
        poll(NULL, 0, 1);
    }
    kill(-d->pid, SIGKILL);
    while (reaped == 0 || (reaped < 0 && errno == EINTR))
        reaped = waitpid(d->pid, &wait_status, 0);
    d->pid = 0;
    return reaped > 0 ? wait_status : -1;
}

/* What to say about a decoder whose end of the socket is closed before DONE. */
static lb_status died(decoder *d, lb_error *error) {
    const int wait_status = stop(d, EXIT_GRACE_MS);
    if (wait_status != -1 && WIFSIGNALED(wait_status)) {
        const int signal_number = WTERMSIG(wait_status);
        const char *name = sigabbrev_np(signal_number);
        if (signal_number == SIGXCPU)
            return lb_error_set(error, LB_STATUS_TIMEOUT, "decoding took more than %d s of processor time", CPU_S_MAX);
        return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder crashed (SIG%s) on this file",
                            name ? name : "unknown");
    }
    if (wait_status != -1 && WIFEXITED(wait_status))
        return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder %s ended without an answer (exit status %d)",
                            d->program, WEXITSTATUS(wait_status));
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder %s ended without an answer", d->program);
}

static lb_status send_all(decoder *d, const void *message, size_t bytes, lb_error *error) {
    ssize_t sent;
    do
        sent = send(d->socket, message, bytes, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)bytes ? LB_STATUS_OK : died(d, error);
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
    return lb_error_set(error, status, "%.*s", (int)strnlen(reply->message, sizeof reply->message), reply->message);
}

/* Waits for the next message; PROGRESS only winds the clock up again. */
static lb_status receive(decoder *d, const lb_frames_params *params, lb_decode_reply *reply, lb_error *error) {
    double heard_s = lb_now_s();
    for (;;) {
        if (params->cancel && *params->cancel)
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        if (lb_now_s() - heard_s > params->timeout_s)
            return lb_error_set(error, LB_STATUS_TIMEOUT, "the decoder made no progress for %g s", params->timeout_s);
        struct pollfd ready = {.fd = d->socket, .events = POLLIN};
        if (poll(&ready, 1, POLL_MS) <= 0) {
            /* A wrapper's children can hold the socket open after it died: so look at the process, too. */
            siginfo_t info = {0};
            if (waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == d->pid) {
                if (poll(&ready, 1, 0) <= 0)
                    return died(d, error);
            } else {
                continue;
            }
        }
        char buffer[sizeof *reply + 1]; /* one more, to see a message that is too long */
        const ssize_t bytes = recv(d->socket, buffer, sizeof buffer, 0);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes <= 0)
            return died(d, error);
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

static lb_status send_request(decoder *d, const char *path, const lb_frames_params *params, lb_error *error) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    lb_decode_request request = {
        .magic = LB_DECODE_MAGIC,
        .version = LB_DECODE_VERSION,
        .parent_pid = getpid(),
        .threads = processors < 1             ? 1
                   : processors > THREADS_MAX ? THREADS_MAX
                                              : (int32_t)processors,
        .cpu_s = CPU_S_MAX,
        .address_space_bytes = working_bytes + params->max_bytes,
    };
    const char *dot = strrchr(path, '.');
    if (dot && strlen(dot + 1) < sizeof request.extension)
        for (int i = 0; dot[1 + i]; i++)
            request.extension[i] = isalnum((unsigned char)dot[1 + i]) ? (char)tolower((unsigned char)dot[1 + i]) : 'x';
    return send_all(d, &request, sizeof request, error);
}

static lb_status converse(decoder *d, const char *path, const lb_frames_params *params, lb_frames *frames,
                          lb_error *error) {
    lb_decode_reply reply;
    lb_status status = send_request(d, path, params, error);
    if (status != LB_STATUS_OK || (status = receive(d, params, &reply, error)) != LB_STATUS_OK)
        return status;
    if (reply.kind != LB_DECODE_HEADER || reply.width < 1 || reply.height < 1 || reply.width > LB_DECODE_SIDE_MAX ||
        reply.height > LB_DECODE_SIDE_MAX || reply.n_total < 1 || reply.n_total > LB_DECODE_PACKETS_MAX ||
        !(reply.fps >= 0 && isfinite(reply.fps)))
        return out_of_turn(&reply, error);
    frames->n_total = reply.n_total;
    frames->fps = reply.fps;
    if ((status = lb_frame_indices(frames->n_total, frames->fps, params, frames->index, error)) != LB_STATUS_OK ||
        (status = lb_frames_map(frames, reply.width, reply.height, params->max_bytes, false, error)) != LB_STATUS_OK)
        return status;

    lb_decode_go go = {.magic = LB_DECODE_MAGIC, .version = LB_DECODE_VERSION, .n_frames = frames->n_frames};
    const size_t index_bytes = (size_t)frames->n_frames * sizeof *go.index;
    memcpy(go.index, frames->index, index_bytes);
    if ((status = send_all(d, &go, offsetof(lb_decode_go, index) + index_bytes, error)) != LB_STATUS_OK)
        return status;
    for (int i = 0; i < frames->n_frames; i++) { /* slots come in order, since the indices ascend */
        if ((status = receive(d, params, &reply, error)) != LB_STATUS_OK)
            return status;
        if (reply.kind != LB_DECODE_FRAME || reply.slot != i || !isfinite(reply.time_s))
            return out_of_turn(&reply, error);
        frames->time_s[i] = reply.time_s;
    }
    if ((status = receive(d, params, &reply, error)) != LB_STATUS_OK)
        return status;
    return reply.kind == LB_DECODE_DONE ? LB_STATUS_OK : out_of_turn(&reply, error);
}

lb_status lb_decoder_run(int fd, const char *path, const lb_frames_params *params, lb_frames *frames, lb_error *error) {
    decoder d = {.socket = -1};
    lb_status status = start(&d, fd, frames->fd, params->decoder_path, error);
    if (status == LB_STATUS_OK)
        status = converse(&d, path, params, frames, error);
    stop(&d, status == LB_STATUS_OK ? EXIT_GRACE_MS : 0);
    return status;
}
