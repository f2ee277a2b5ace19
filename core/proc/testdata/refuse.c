// Programs that cannot be kept, by the first argument: each says "ready" when it is in
// its state, "cannot" where the system does not let it get there, and answers "alive".
#include "t.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static void cannot(void)
{
	dprintf(1, "cannot\n");
	_exit(0);
}

static void seccomp(void)
{
	struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog prog = {1, allow};
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0);
}

static char child_stack[65536];

static int lives(void *arg)
{
	for (;;)
		pause();
	return 0;
}

static void sharing(int flags) { CHECK(clone(lives, child_stack + sizeof child_stack, flags | SIGCHLD, 0) > 0); }

static volatile int unshared;

static void *waits(void *arg)
{
	lives(0);
	return arg;
}

static void *unshares(void *arg)
{
	pthread_t t;
	CHECK(unshare((uintptr_t)arg) == 0);
	if ((uintptr_t)arg == CLONE_FILES)
		CHECK(pthread_create(&t, 0, waits, 0) == 0); /* and shares it */
	unshared = 1;
	lives(0);
	return 0;
}

static void thread_with_own(int what)
{
	pthread_t t;
	CHECK(pthread_create(&t, 0, unshares, (void *)(uintptr_t)what) == 0);
	while (!unshared)
		usleep(100);
}

static void namespaces(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWUTS) != 0)
		cannot();
}

static void deleted_root(char *dir)
{
	CHECK(chdir(dir) == 0 && mkdir("gone", 0700) == 0);
	if (chroot("gone") != 0)
		cannot();
	CHECK(rmdir("gone") == 0);
}

static void device(void)
{
	int f = open("/dev/mem", O_RDONLY);
	if (f < 0 || mmap(0, 4096, PROT_READ, MAP_SHARED, f, 0xf0000) == MAP_FAILED)
		cannot();
}

static void hugetlb(void)
{
	int fd = memfd_create("huge", MFD_HUGETLB);
	if (fd < 0 || ftruncate(fd, 2 << 20) != 0 ||
	    mmap(0, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0) == MAP_FAILED)
		cannot();
}

static void userfault(void)
{
	int f = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
	struct uffdio_api api = {.api = UFFD_API};
	void *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {.range = {(uintptr_t)p, 8192}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	if (f < 0 || ioctl(f, UFFDIO_API, &api) != 0 || ioctl(f, UFFDIO_REGISTER, &reg) != 0)
		cannot();
}

int main(int argc, char **argv)
{
	char *how = argv[1];
	CHECK(argc == 3);
	if (!strcmp(how, "seccomp"))
		seccomp();
	if (!strcmp(how, "CLONE_FILES"))
		sharing(CLONE_FILES);
	if (!strcmp(how, "CLONE_FS"))
		sharing(CLONE_FS);
	if (!strcmp(how, "CLONE_VM"))
		sharing(CLONE_VM);
	if (!strcmp(how, "CLONE_SIGHAND"))
		sharing(CLONE_VM | CLONE_SIGHAND);
	if (!strcmp(how, "own files"))
		thread_with_own(CLONE_FILES);
	if (!strcmp(how, "own cwd"))
		thread_with_own(CLONE_FS);
	if (!strcmp(how, "namespaces"))
		namespaces();
	if (!strcmp(how, "deleted root"))
		deleted_root(argv[2]);
	if (!strcmp(how, "device"))
		device();
	if (!strcmp(how, "hugetlb"))
		hugetlb();
	if (!strcmp(how, "userfaultfd"))
		userfault();
	ready();
	for (char line[256];;) {
		command(line);
		CHECK(write(1, "alive\n", 6) == 6);
	}
}
