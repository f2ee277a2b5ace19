// Programs that cannot be kept, by the first argument.
#include "t.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/stat.h>

static char stack[65536] __attribute__((aligned(16)));

static void allow_filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = {.len = 1, .filter = &allow};
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0);
}

static int announce[2];

static void announced(void)
{
	char b;
	CHECK(read(announce[0], &b, 1) == 1);
}

// cannot ends a program that may not do here what makes it one to refuse.
static void cannot(void)
{
	dprintf(1, "skip errno %d\n", errno);
	_exit(0);
}

static void *filtered(void *arg)
{
	allow_filter();
	CHECK(write(announce[1], "", 1) == 1);
	for (;;)
		pause();
	return arg;
}

static int waits(void *arg)
{
	(void)arg;
	syscall(SYS_write, announce[1], "", 1L);
	for (;;)
		syscall(SYS_ppoll, 0L, 0L, 0L, 0L, 8L);
	return 0;
}

static void with_thread(void *(*f)(void *), void *arg)
{
	pthread_t t;
	CHECK(pthread_create(&t, 0, f, arg) == 0);
	announced();
}

static void with_clone(int flags)
{
	CHECK(clone(waits, stack + sizeof stack, flags | SIGCHLD, 0) > 0);
	announced();
}

static void deleted_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	CHECK(mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
	close(fd);
	char other[512];
	snprintf(other, sizeof other, "%s.new", path);
	fd = open(other, O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0);
	close(fd);
	CHECK(rename(other, path) == 0);
}

int main(int argc, char **argv)
{
	char line[256];
	CHECK(argc > 1 && pipe(announce) == 0);
	const char *how = argv[1], *arg = argc > 2 ? argv[2] : 0;
	if (!strcmp(how, "seccomp-thread"))
		with_thread(filtered, 0);
	if (!strcmp(how, "vm-sibling"))
		with_clone(CLONE_VM | CLONE_PARENT);
	if (!strcmp(how, "files-sibling"))
		with_clone(CLONE_FILES | CLONE_PARENT);
	if (!strcmp(how, "all-namespaces") && unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC) != 0)
		cannot();
	if (!strcmp(how, "exe"))
		CHECK(unlink(argv[0]) == 0);
	if (!strcmp(how, "replaced"))
		deleted_file(arg);
	ready();
	command(line);
}
