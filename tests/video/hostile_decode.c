/* A decoder that does on purpose what a video must never make one do: behind the same protocol as lowbeam-decode and
 * confined by the same code (decode_confine.c). The video's first word says what. "try NAME" attempts something
 * forbidden and answers with an ERROR that says what became of it; the other words speak for themselves.
 *
 *     good threads slow crash abort vanish die-late lie hang hang-late spin spin-late cpu eat reserve
 */
#include "video/decode_confine.h"

#include "lowbeam/status.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIDE = 28, N_TOTAL = 8 };

static int filter_errno;

static void say(lb_decode_reply reply) {
    reply.magic = LB_DECODE_MAGIC;
    reply.version = LB_DECODE_VERSION;
    if (send(LB_DECODE_FD_SOCKET, &reply, sizeof reply, MSG_NOSIGNAL) != (ssize_t)sizeof reply)
        _exit(1);
}

static void say_header(void) {
    say((lb_decode_reply){.kind = LB_DECODE_HEADER,
                          .width = SIDE,
                          .height = SIDE,
                          .n_total = N_TOTAL,
                          .fps = 10,
                          .filter_errno = filter_errno});
}

/* n_before: slots that get their pixels before something happens; -1: all, and DONE. */
static void give_frames(int n_before) {
    static lb_decode_go go;
    say_header();
    if (recv(LB_DECODE_FD_SOCKET, &go, sizeof go, 0) < (ssize_t)offsetof(lb_decode_go, index))
        _exit(1);
    const size_t bytes = 3 * SIDE * SIDE;
    uint8_t *memory =
        mmap(NULL, bytes * (size_t)go.n_frames, PROT_READ | PROT_WRITE, MAP_SHARED, LB_DECODE_FD_FRAMES, 0);
    if (memory == MAP_FAILED)
        _exit(1);
    for (int i = 0; i < go.n_frames && (n_before < 0 || i < n_before); i++) {
        for (size_t k = 0; k < bytes; k++)
            memory[bytes * (size_t)i + k] = (uint8_t)(k * 7 + 31 * (size_t)go.index[i]);
        say((lb_decode_reply){.kind = LB_DECODE_FRAME, .slot = i, .time_s = 0.1 * (double)go.index[i]});
    }
    if (n_before < 0) {
        say((lb_decode_reply){.kind = LB_DECODE_DONE});
        _exit(0);
    }
}

static _Noreturn void hang(void) {
    for (;;)
        nanosleep(&(struct timespec){.tv_sec = 3600}, NULL);
}

/* At work for ever, as a file of endless packets would be. */
static _Noreturn void spin(void) {
    for (;;) {
        say((lb_decode_reply){.kind = LB_DECODE_PROGRESS});
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

static void *burn(void *user) {
    for (volatile unsigned long i = 0;; i++)
        if (!user && i % 100000000 == 0)
            say((lb_decode_reply){.kind = LB_DECODE_PROGRESS});
    return NULL;
}

/* Takes memory until there is none, and says how much there was. */
static _Noreturn void eat(void) {
    enum { PIECE = 4 << 20 };
    lb_decode_reply reply = {.kind = LB_DECODE_ERROR, .status = LB_STATUS_OUT_OF_MEMORY};
    size_t pieces = 0;
    for (char *piece; pieces < 4096 && (piece = malloc(PIECE)); pieces++)
        memset(piece, 1, PIECE);
    snprintf(reply.message, sizeof reply.message, "ate %zu MiB", pieces * PIECE >> 20);
    say(reply);
    _exit(1);
}

/* Addresses alone, for a test in which the limit is the default one of gigabytes. */
static _Noreturn void reserve(void) {
    enum { PIECE = 64 << 20 };
    lb_decode_reply reply = {.kind = LB_DECODE_ERROR, .status = LB_STATUS_OUT_OF_MEMORY};
    size_t pieces = 0;
    while (pieces < 1024 && mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        pieces++;
    snprintf(reply.message, sizeof reply.message, "%s after %zu MiB", pieces < 1024 ? "no memory" : "no end",
             pieces * PIECE >> 20);
    say(reply);
    _exit(1);
}

/* Attempts: 0 or what errno says. ---------------------------------------------------------------------------------- */

static int result(long value) {
    return value < 0 ? errno : 0;
}

static int try_open(void) {
    return result(open("/etc/passwd", O_RDONLY));
}

static int try_create(void) {
    return result(open("/tmp/lowbeam-escaped", O_WRONLY | O_CREAT, 0600));
}

static int try_write(void) {
    return result(write(LB_DECODE_FD_FILE, "x", 1));
}

static int try_grow(void) {
    return result(ftruncate(LB_DECODE_FD_FRAMES, (off_t)1 << 40));
}

static int try_fill(void) {
    return result(pwrite(LB_DECODE_FD_FRAMES, "x", 1, (off_t)1 << 32));
}

static int try_unlink(void) {
    return result(unlink("/tmp/lowbeam-escaped"));
}

static int try_stat(void) {
    struct stat st;
    return result(stat("/etc/passwd", &st));
}

static int try_socket(void) {
    return result(socket(AF_INET, SOCK_STREAM, 0));
}

static int try_send_to(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    return result(sendto(LB_DECODE_FD_SOCKET, "x", 1, 0, (struct sockaddr *)&to, sizeof to));
}

static int try_fork(void) {
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return result(pid);
}

static int try_exec(void) {
    return result(execl("/bin/true", "true", (char *)NULL));
}

static int try_kill(void) {
    return result(kill(getppid(), 0));
}

static int try_trace(void) {
    return result(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

static int try_code(void) {
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
               ? errno
               : 0;
}

static int try_protect(void) {
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? -1 : result(mprotect(memory, 4096, PROT_READ | PROT_EXEC));
}

static int try_raise(void) {
    return result(setrlimit(RLIMIT_AS, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
}

static int try_descriptor(void) {
    return result(dup(LB_DECODE_FD_FILE));
}

static const struct {
    const char *name;
    int (*attempt)(void);
} attempts[] = {
    {"open", try_open},
    {"create", try_create},
    {"write", try_write},
    {"grow", try_grow},
    {"fill", try_fill},
    {"unlink", try_unlink},
    {"stat", try_stat},
    {"socket", try_socket},
    {"send-to", try_send_to},
    {"fork", try_fork},
    {"exec", try_exec},
    {"kill", try_kill},
    {"trace", try_trace},
    {"code", try_code},
    {"protect", try_protect},
    {"raise", try_raise},
    {"descriptor", try_descriptor},
};

static _Noreturn void try(const char *name) {
    lb_decode_reply reply = {.kind = LB_DECODE_ERROR, .status = LB_STATUS_FORMAT};
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++)
        if (!strcmp(attempts[i].name, name)) {
            const int failed = attempts[i].attempt();
            snprintf(reply.message, sizeof reply.message, "%s: %s", name, failed ? strerror(failed) : "ESCAPED");
            say(reply);
            _exit(1);
        }
    snprintf(reply.message, sizeof reply.message, "%s: there is no such attempt", name);
    say(reply);
    _exit(1);
}

static void die_of(int number) {
    signal(number, SIG_DFL); /* a sanitizer has a handler */
    raise(number);
}

static void *nothing(void *user) {
    return user;
}

int main(void) {
    lb_decode_request request;
    if (recv(LB_DECODE_FD_SOCKET, &request, sizeof request, 0) != (ssize_t)sizeof request)
        return 1;
    filter_errno = lb_decode_confine(&request);
    char text[64] = "", name[32] = "";
    if (pread(LB_DECODE_FD_FILE, text, sizeof text - 1, 0) < 1)
        return 1;
    text[strcspn(text, "\n")] = 0;
    if (sscanf(text, "try %31s", name) == 1)
        try(name);
    if (!strcmp(text, "good"))
        give_frames(-1);
    if (!strcmp(text, "crash"))
        die_of(SIGSEGV);
    if (!strcmp(text, "abort"))
        abort();
    if (!strcmp(text, "vanish"))
        _exit(0);
    if (!strcmp(text, "hang"))
        hang();
    if (!strcmp(text, "hang-late")) {
        give_frames(1);
        hang();
    }
    if (!strcmp(text, "die-late")) {
        give_frames(1);
        die_of(SIGBUS);
    }
    if (!strcmp(text, "slow")) {
        nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
        give_frames(-1);
    }
    if (!strcmp(text, "spin"))
        spin();
    if (!strcmp(text, "spin-late")) {
        give_frames(1);
        spin();
    }
    if (!strcmp(text, "lie")) {
        say_header();
        say((lb_decode_reply){.kind = LB_DECODE_FRAME, .slot = 77});
        hang();
    }
    if (!strcmp(text, "eat"))
        eat();
    if (!strcmp(text, "reserve"))
        reserve();
    if (!strcmp(text, "threads")) { /* as FFmpeg's: they must still start and end */
        pthread_t thread[4];
        for (int i = 0; i < 4; i++)
            if (pthread_create(&thread[i], NULL, nothing, NULL))
                _exit(2);
        for (int i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
        give_frames(-1);
    }
    if (!strcmp(text, "cpu")) {
        pthread_t other;
        pthread_create(&other, NULL, burn, (void *)1);
        burn(NULL);
    }
    return 3;
}
