/* Starts lowbeam-decode for one video and ends it whatever happens; what the two say to each other: client_talk.c. */
#include "video/client_internal.h"

#include "base/error.h"
#include "base/time.h"
#include "video/protocol.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_GRACE_MS = 2000 }; /* after DONE; then it is killed */

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

static lb_status start(lb_decoder *d, int file_fd, int frames_fd, const char *given, lb_error *error) {
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
static int stop(lb_decoder *d, int grace_ms) {
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

lb_status lb_decoder_died(lb_decoder *d, lb_error *error) {
    const int wait_status = stop(d, EXIT_GRACE_MS);
    if (wait_status != -1 && WIFSIGNALED(wait_status)) {
        const int signal_number = WTERMSIG(wait_status);
        const char *name = sigabbrev_np(signal_number);
        if (signal_number == SIGXCPU)
            return lb_error_set(error, LB_STATUS_TIMEOUT, "decoding took more than %d s of processor time",
                                (int)d->cpu_s);
        if (signal_number == SIGSYS)
            return lb_error_set(error, LB_STATUS_CHILD_DIED,
                                "the decoder was ended by its system call filter (SIGSYS): this file made it do what "
                                "no decoder does");
        if (signal_number == SIGKILL)
            return lb_error_set(
                error, LB_STATUS_CHILD_DIED,
                "the decoder was killed (SIGKILL) on this file, perhaps by the kernel for want of memory");
        return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder crashed (SIG%s) on this file",
                            name ? name : "unknown");
    }
    if (wait_status != -1 && WIFEXITED(wait_status))
        return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder %s ended without an answer (exit status %d)",
                            d->program, WEXITSTATUS(wait_status));
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "the decoder %s ended without an answer", d->program);
}

lb_status lb_decoder_run(int fd, const char *path, const lb_frames_params *params, lb_frames *frames, lb_error *error) {
    struct stat st;
    lb_decoder d = {.socket = -1, .start_s = lb_now_s(), .file_bytes = fstat(fd, &st) ? 0 : st.st_size};
    lb_status status = start(&d, fd, frames->fd, params->decoder_path, error);
    if (status == LB_STATUS_OK)
        status = lb_decoder_converse(&d, path, params, frames, error);
    const bool whole = status == LB_STATUS_OK && !params->header_only && d.there[frames->n_frames - 1];
    stop(&d, whole ? EXIT_GRACE_MS : 0);
    if (status == LB_STATUS_OK && !params->header_only && params->enough_s > 0)
        status = lb_frames_keep(frames, d.there, error); /* now that nobody writes there any more */
    return status;
}
