/* seccomp filters, several on each other and different ones by thread; one that would forbid a checkpoint
 * as: root
 */
#include "../object.h"
#include "team.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

/* deny makes a system call fail with an error. */
static void deny(int nr, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof code / sizeof *code, code };

	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0);
}

static void set(int n)
{
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	deny(SYS_getppid, EBUSY);
	deny(SYS_getppid, EXDEV); /* asked first */
	if (n == 1) {
		deny(SYS_mmap, EAGAIN);
		deny(SYS_prctl, ENOSYS);
	}
	deny(SYS_getpgid, 100 + n);
}

static void check(int n)
{
	CHECK(syscall(SYS_getppid) == -1 && errno == EXDEV);
	CHECK(syscall(SYS_getpgid, 0) == -1 && errno == 100 + n);
	CHECK(syscall(SYS_getsid, 0) >= 0);
	if (n == 1)
		CHECK(syscall(SYS_mmap, 0, 4096, 0, 0, 0, 0) == -1 && errno == EAGAIN);
}

int main(void)
{
	ht_init();
	team_start(2, set, check);
	while (point()) {
		CHECK(syscall(SYS_getppid) >= 0);
		team_check();
	}
	team_end();
	return done();
}
