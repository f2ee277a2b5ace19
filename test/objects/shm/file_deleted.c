/* Mappings of files that were removed or replaced, in two processes, without a descriptor. */
#include "ipc.h"

static char *map(const char *name, int flags, const char *text)
{
	int fd = open(ht_path(name), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, 50000), 0);
	CHECK_EQ(pwrite(fd, text, strlen(text), 5000), strlen(text));
	char *p = mmap(NULL, 50000, PROT_READ | PROT_WRITE, flags, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(close(fd), 0);
	return p;
}

int main(void)
{
	ht_init();
	char *shared = map("a", MAP_SHARED, "shared"), *private = map("b", MAP_PRIVATE, "private"), *replaced = map("c", MAP_SHARED, "replaced");
	CHECK_EQ(unlink(ht_path("a")), 0);
	CHECK_EQ(unlink(ht_path("b")), 0);
	char *newer = map("d", MAP_SHARED, "newer");
	char to[100];
	strcpy(to, ht_path("c"));
	CHECK_EQ(rename(ht_path("d"), to), 0);
	strcpy(private + 100, "own");
	volatile int *word = (volatile int *)(shared + 20000), *other = (volatile int *)(replaced + 20000);
	pid_t pid = ipc_child();
	if (pid == 0) {
		for (int n = 1;; n++) {
			while (word[0] >= 0 && word[0] < n)
				ht_nap(1);
			if (word[0] < 0)
				_exit(0);
			CHECK(!strcmp(private + 5000, "private"));
			ipc_tell(&other[0], n);
		}
	}
	int n = 0;
	while (point()) {
		ipc_tell(&word[0], ++n);
		ipc_await(&other[0], n);
		CHECK(!strcmp(shared + 5000, "shared"));
		CHECK(!strcmp(private + 5000, "private"));
		CHECK(!strcmp(private + 100, "own"));
		CHECK(!strcmp(replaced + 5000, "replaced"));
		CHECK(!strcmp(newer + 5000, "newer"));
		int fd = open(ht_path("c"), O_RDONLY | O_CLOEXEC);
		CHECK_EQ(pread(fd, to, 5, 5000), 5);
		CHECK(!memcmp(to, "newer", 5));
		CHECK_EQ(close(fd), 0);
	}
	ipc_tell(&word[0], -1);
	ipc_reap(pid);
	return done();
}
