#include "run/child_first.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL_MS = 20, WORDS_MAX = 4096 };

typedef struct result {
    lb_error error;
    lb_status status;
    bool came_back;
} result;

static _Noreturn void be_child(lb_child_first_fn fn, void *user, int words_fd, result *shared) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    const int nothing = open("/dev/null", O_WRONLY);
    if (nothing >= 0)
        dup2(nothing, STDOUT_FILENO);
    dup2(words_fd, STDERR_FILENO);
    lb_error error = {0};
    shared->status = fn(user, &error);
    shared->error = error;
    shared->came_back = true;
    _exit(0);
}

/* The last line of what the child wrote to stderr that says something: an abort's message, then perhaps a backtrace
 * that begins with '#' or '['. */
static void last_words(int fd, char *out, size_t n) {
    char text[WORDS_MAX + 1];
    const off_t end = lseek(fd, 0, SEEK_END);
    const ssize_t got = pread(fd, text, WORDS_MAX, end > WORDS_MAX ? end - WORDS_MAX : 0);
    text[got > 0 ? got : 0] = 0;
    out[0] = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        const bool names_cause = strstr(line, "ASSERT") || strstr(line, "rror") || strstr(line, "abort");
        if (*line && *line != '#' && *line != '[' && (names_cause || !out[0]))
            snprintf(out, n, "%s", line);
    }
}

static lb_status wait_for(pid_t pid, const atomic_bool *cancel, int *how, lb_error *error) {
    for (;;) {
        const pid_t reaped = waitpid(pid, how, WNOHANG);
        if (reaped == pid)
            return LB_STATUS_OK;
        if (reaped < 0 && errno != EINTR)
            return lb_error_set(error, LB_STATUS_IO, "cannot wait for the process that tries the models: %s",
                                strerror(errno));
        if (cancel && *cancel) {
            kill(pid, SIGKILL);
            waitpid(pid, how, 0);
            return lb_error_set(error, LB_STATUS_INTERRUPTED, "interrupted");
        }
        poll(NULL, 0, POLL_MS);
    }
}

static lb_status judge(const result *shared, int how, int words_fd, lb_error *error) {
    char words[512];
    if (shared->came_back) {
        if (shared->status != LB_STATUS_OK && error)
            *error = shared->error;
        return shared->status;
    }
    last_words(words_fd, words, sizeof words);
    if (WIFSIGNALED(how)) {
        const char *name = sigabbrev_np(WTERMSIG(how));
        return lb_error_set(error, LB_STATUS_CHILD_DIED, "tried in a process of its own, which it ended (SIG%s)%s%s",
                            name ? name : "unknown", *words ? ": " : "", words);
    }
    return lb_error_set(error, LB_STATUS_CHILD_DIED, "tried in a process of its own, which ended (exit status %d)%s%s",
                        WEXITSTATUS(how), *words ? ": " : "", words);
}

lb_status lb_child_first(lb_child_first_fn fn, void *user, const atomic_bool *cancel, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    int how = 0;
    const int words_fd = memfd_create("lowbeam-words", MFD_CLOEXEC);
    result *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words_fd < 0 || shared == MAP_FAILED) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory to try the models: %s", strerror(errno));
        goto cleanup;
    }
    fflush(NULL); /* else the child has it, too */
    const pid_t pid = fork();
    if (pid < 0) {
        status = lb_error_set(error, LB_STATUS_IO, "no process to try the models: %s", strerror(errno));
        goto cleanup;
    }
    if (pid == 0)
        be_child(fn, user, words_fd, shared);
    status = wait_for(pid, cancel, &how, error);
    if (status == LB_STATUS_OK)
        status = judge(shared, how, words_fd, error);

cleanup:
    if (shared != MAP_FAILED)
        munmap(shared, sizeof *shared);
    if (words_fd >= 0)
        close(words_fd);
    return status;
}
