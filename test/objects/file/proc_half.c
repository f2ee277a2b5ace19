/* files of /proc that are read in part: the rest is the program's too */
#include "file.h"
#include <pthread.h>
#include <sys/prctl.h>

static int fd[3];
static const char *const name[3] = { "/proc/self/comm", "/proc/self/status", "/proc/self/maps" };
static const char *const rest[3] = { "program\n", "Threads:\t2\n", "[stack]\n" };

static void *waits(void *arg)
{
	for (;;)
		pause();
	return arg;
}

int main(void)
{
	static char got[1 << 16];
	pthread_t t;

	ht_init();
	CHECK_EQ(prctl(PR_SET_NAME, "this program"), 0);
	CHECK(pthread_create(&t, NULL, waits, NULL) == 0);
	for (int i = 0; i < 3; i++)
		CHECK((fd[i] = open(name[i], O_RDONLY)) >= 0);
	do {
		for (int i = 0; i < 3; i++) {
			ssize_t n, size = 0;
			while ((n = read(fd[i], got + size, sizeof got - 1 - size)) > 0)
				size += n;
			CHECK(n == 0);
			got[size] = 0;
			if (!strstr(got, rest[i]))
				FAIL("the rest of %s is %zd bytes: %s", name[i], size, got);
			CHECK_EQ(lseek(fd[i], 0, SEEK_SET), 0);
			CHECK_EQ(read(fd[i], got, 5), 5);
		}
	} while (point());
	return done();
}
