#include "video/decode_confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 }; /* its shadow reserves terabytes of addresses */
#else
enum { IS_SANITIZED = 0 };
#endif

#ifdef __s390x__
enum { CLONE_FLAGS_ARGUMENT = 1 };
#else
enum { CLONE_FLAGS_ARGUMENT = 0 };
#endif

/* What FFmpeg, its threads, malloc and _exit need, whatever the arguments. Nothing here reaches beyond the process. */
static const int allowed[] = {
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(membarrier),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity), /* how many threads glibc's malloc is made for */
    SCMP_SYS(getcpu),
    SCMP_SYS(sysinfo), /* glibc's qsort asks how much memory there is */
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(clock_gettime), /* where the vDSO does not answer */
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

/* No decoder comes to these by accident: who calls them has taken the process over. */
static const int deadly[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(connect),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(kill),
    SCMP_SYS(tkill),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(bpf),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(mount),
    SCMP_SYS(unshare),
    SCMP_SYS(setns),
    SCMP_SYS(init_module),
};

#define IS_FD(argument, fd)   SCMP_CMP32(argument, SCMP_CMP_EQ, fd)
#define LACKS(argument, bits) SCMP_CMP32(argument, SCMP_CMP_MASKED_EQ, bits, 0)
#define HAS(argument, bits)   SCMP_CMP32(argument, SCMP_CMP_MASKED_EQ, bits, bits)

static int add_rules(scmp_filter_ctx filter) {
    int failed = 0;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        failed |= seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0);

    /* The three descriptors, and 2, which is /dev/null: glibc's and the sanitizers' last words. */
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 2, IS_FD(0, LB_DECODE_FD_SOCKET),
                               SCMP_A4(SCMP_CMP_EQ, 0));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(recvfrom), 1, IS_FD(0, LB_DECODE_FD_SOCKET));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(pread64), 1, IS_FD(0, LB_DECODE_FD_FILE));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(lseek), 1, IS_FD(0, LB_DECODE_FD_FRAMES));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(write), 1, IS_FD(0, STDERR_FILENO));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(writev), 1, IS_FD(0, STDERR_FILENO));

    /* Memory without a file, and the frames' memory, whose size is known only when the file's header has been read.
     * None that can be executed: FFmpeg compiles nothing at run time with the scaler that we use. */
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, LACKS(2, PROT_EXEC), HAS(3, MAP_ANONYMOUS));
    failed |=
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, LACKS(2, PROT_EXEC), IS_FD(4, LB_DECODE_FD_FRAMES));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, LACKS(2, PROT_EXEC));

    /* Threads, no processes. clone3 has its flags in memory, where a filter cannot look: glibc then takes clone. */
    failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, HAS(CLONE_FLAGS_ARGUMENT, CLONE_THREAD));
    failed |=
        seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(clone), 1, LACKS(CLONE_FLAGS_ARGUMENT, CLONE_THREAD));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, IS_FD(0, PR_SET_NAME));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, IS_FD(0, (uint32_t)getpid())); /* abort() */
    return failed;
}

static int load_filter(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return ENOSYS;
    int failed = add_rules(filter);
    if (!failed)
        failed = seccomp_load(filter);
    seccomp_release(filter);
    /* libseccomp says ECANCELED where the kernel said no, whatever the kernel's word was. */
    return failed == -ECANCELED ? EPERM : failed < 0 ? -failed : failed;
}

static void limit(int resource, rlim_t soft, rlim_t hard) {
    setrlimit(resource, &(struct rlimit){soft, hard});
}

static void be_first_to_go(void) {
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "1000", 4) != 4) {
        /* then the kernel chooses as it does without */
    }
    close(fd);
}

/* For who runs lowbeam as root: raising one's own limits, among others, is a capability. */
static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    syscall(SYS_capset, &header, none);
}

int lb_decode_confine(const lb_decode_request *request) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != request->parent_pid)
        _exit(1); /* died before prctl */
    be_first_to_go();
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    limit(RLIMIT_CORE, 0, 0);
    limit(RLIMIT_FSIZE, 0, 0); /* shared memory that is mapped is no matter of it */
    limit(RLIMIT_NOFILE, LB_DECODE_FD_END, LB_DECODE_FD_END);
    limit(RLIMIT_CPU, (rlim_t)request->cpu_s, (rlim_t)request->cpu_s + 5);
    if (!IS_SANITIZED)
        limit(RLIMIT_AS, request->address_space_bytes, request->address_space_max_bytes);
    drop_capabilities();
    return load_filter();
}
