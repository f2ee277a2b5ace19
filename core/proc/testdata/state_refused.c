// Programs that cannot be kept, by the first argument.
#include "t.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
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

static void *apart(void *arg)
{
	CHECK(unshare((long)arg) == 0);
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

static void watched_memory(void)
{
	int fd = syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY);
	struct uffdio_api api = {.api = UFFD_API};
	void *at = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register r = {.range = {(uintptr_t)at, 8192}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	if (fd < 0)
		cannot();
	CHECK(ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &r) == 0);
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
	if (!strcmp(how, "seccomp"))
		allow_filter();
	if (!strcmp(how, "seccomp-thread"))
		with_thread(filtered, 0);
	if (!strcmp(how, "files-thread"))
		with_thread(apart, (void *)(long)CLONE_FILES);
	if (!strcmp(how, "fs-thread"))
		with_thread(apart, (void *)(long)CLONE_FS);
	if (!strcmp(how, "files"))
		with_clone(CLONE_FILES);
	if (!strcmp(how, "fs"))
		with_clone(CLONE_FS);
	if (!strcmp(how, "vm"))
		with_clone(CLONE_VM);
	if (!strcmp(how, "sighand"))
		with_clone(CLONE_VM | CLONE_SIGHAND);
	if (!strcmp(how, "vm-sibling"))
		with_clone(CLONE_VM | CLONE_PARENT);
	if (!strcmp(how, "files-sibling"))
		with_clone(CLONE_FILES | CLONE_PARENT);
	if (!strcmp(how, "user-namespace") && unshare(CLONE_NEWUSER) != 0)
		cannot();
	if (!strcmp(how, "all-namespaces") && unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC) != 0)
		cannot();
	if (!strcmp(how, "cwd")) {
		CHECK(mkdir(arg, 0700) == 0 && chdir(arg) == 0 && rmdir(arg) == 0);
	}
	if (!strcmp(how, "exe"))
		CHECK(unlink(argv[0]) == 0);
	if (!strcmp(how, "userfaultfd"))
		watched_memory();
	if (!strcmp(how, "replaced"))
		deleted_file(arg);
	if (!strcmp(how, "chroot") && (chroot(arg) != 0 || chdir("/") != 0))
		cannot();
	ready();
	command(line);
}
