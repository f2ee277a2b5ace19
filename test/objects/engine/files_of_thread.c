/* threads with tables of descriptors of their own, unshare(2) with CLONE_FILES */
#include "../object.h"
#include "team.h"
#include <sched.h>
#include <sys/stat.h>

enum { THREADS = 3, OWN = 300 };

static int shared[2], ends[2], offset;

/* Each thread has a file of its own at OWN, shares one end of a pipe with the
 * process, and has closed the other; the last has closed all. */
static void set(int n)
{
	char name[16];

	CHECK(unshare(CLONE_FILES) == 0);
	if (n == THREADS) {
		CHECK(close_range(0, ~0U, 0) == 0);
		return;
	}
	snprintf(name, sizeof name, "own%d", n);
	int fd = open(ht_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, name, sizeof name), sizeof name);
	CHECK_EQ(dup3(fd, OWN, n == 1 ? O_CLOEXEC : 0), OWN);
	CHECK(close(fd) == 0);
	CHECK(close(ends[0]) == 0);
}

static void check(int n)
{
	struct stat st;
	char name[16], got[16];

	if (n == THREADS) {
		for (int fd = 0; fd < 2 * OWN; fd++)
			CHECK(fcntl(fd, F_GETFD) < 0);
		return;
	}
	snprintf(name, sizeof name, "own%d", n);
	CHECK_EQ(fcntl(OWN, F_GETFD), n == 1 ? FD_CLOEXEC : 0);
	CHECK_EQ(lseek(OWN, 0, SEEK_CUR), sizeof name);
	CHECK_EQ(pread(OWN, got, sizeof got, 0), sizeof got);
	CHECK(strcmp(name, got) == 0);
	CHECK_EQ(lseek(shared[0], 0, SEEK_CUR), offset); /* one description */
	CHECK(fcntl(ends[0], F_GETFD) < 0);
	CHECK(fcntl(shared[1], F_GETFD) == 0); /* which the process has closed since */
	CHECK(fstat(shared[1], &st) == 0 && S_ISCHR(st.st_mode));
	CHECK_EQ(write(ends[1], &n, sizeof n), sizeof n);
}

int main(void)
{
	ht_init();
	CHECK(pipe(ends) == 0);
	shared[0] = open(ht_path("shared"), O_RDWR | O_CREAT, 0600);
	shared[1] = open("/dev/null", O_RDONLY);
	CHECK(shared[0] >= 0 && shared[1] >= 0);
	team_start(THREADS, set, check);
	CHECK(close(shared[1]) == 0);
	while (point()) {
		CHECK(fcntl(OWN, F_GETFD) < 0);
		CHECK(fcntl(shared[1], F_GETFD) < 0);
		offset = lseek(shared[0], 10, SEEK_CUR);
		team_check();
		for (int n = 1, got, sum = 0; n < THREADS; n++) {
			CHECK_EQ(read(ends[0], &got, sizeof got), sizeof got);
			sum += got;
			CHECK(n < THREADS - 1 || sum == THREADS * (THREADS - 1) / 2);
		}
	}
	team_end();
	return done();
}
