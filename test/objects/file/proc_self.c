/* files of /proc and /sys: of the own process, of a child, of the kernel */
#include "file.h"

static void check(void) {}

static void has(int fd, const char *format, int value)
{
	char b[4096] = "", want[64];

	snprintf(want, sizeof want, format, value);
	CHECK(pread(fd, b, sizeof b - 1, 0) > 0);
	if (!strstr(b, want))
		FAIL("no %s in %s", want, b);
}

int main(void)
{
	char name[64];

	ht_init();
	int peer_fd, self = open("/proc/self/status", O_RDONLY), dir = open("/proc/self", O_RDONLY | O_DIRECTORY);
	int comm = open("/proc/self/comm", O_RDWR), sys = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
	int uptime = open("/proc/uptime", O_RDONLY), mem = open("/proc/self/mem", O_RDWR);
	struct peer p = fork_peer(check);
	snprintf(name, sizeof name, "/proc/%d/stat", p.pid);
	peer_fd = open(name, O_RDONLY);
	CHECK(self >= 0 && dir >= 0 && comm >= 0 && peer_fd >= 0 && uptime >= 0 && mem >= 0);
	CHECK_EQ(lseek(self, 5, SEEK_SET), 5);
	int secret = getpid();
	while (point()) {
		char b[64];
		int value = 0;
		has(self, "Pid:\t%d\n", getpid());
		has(peer_fd, "%d (", p.pid);
		CHECK_EQ(lseek(self, 0, SEEK_CUR), 5);
		int in = openat(dir, "status", O_RDONLY);
		has(in, "Pid:\t%d\n", getpid());
		close(in);
		CHECK_EQ(write(comm, "renamed", 7), 7);
		CHECK_EQ(pread(mem, &value, sizeof value, (off_t)(intptr_t)&secret), sizeof value);
		CHECK_EQ(value, secret);
		CHECK(pread(uptime, b, sizeof b, 0) > 0);
		if (sys >= 0)
			CHECK(pread(sys, b, sizeof b, 0) > 0);
	}
	peer_ends(&p);
	return done();
}
