/* Starts a program as on a kernel that takes no system call filter: refuse_filter, with $REFUSED_PROGRAM naming the
 * program. It has to set a filter for that itself. */
#include <errno.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int n, char **arguments) {
    (void)n;
    const char *program = getenv("REFUSED_PROGRAM");
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!program || !filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(seccomp), 0) ||
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP)) ||
        seccomp_load(filter))
        return 77;
    execv(program, arguments);
    return 78;
}
