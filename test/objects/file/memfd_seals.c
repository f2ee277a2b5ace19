/* seals of memfds, with a mapping from before F_SEAL_FUTURE_WRITE, and a
 * read-only one of a file that is sealed against writing */
#include "file.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

int main(void)
{
	static const int seals[] = { 0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_WRITE | F_SEAL_SEAL, F_SEAL_FUTURE_WRITE,
				     F_SEAL_SEAL };
	enum { N = sizeof seals / sizeof seals[0], WRITE = 3, FUTURE = 5 };
	int fd[N];
	char *m[N], turn = 'a';

	ht_init();
	for (int i = 0; i < N; i++) {
		fd[i] = memfd_create("sealed", MFD_ALLOW_SEALING);
		CHECK(fd[i] >= 0);
		CHECK_EQ(write(fd[i], "content", 7), 7);
		CHECK(ftruncate(fd[i], 4096) == 0);
		int late = i == WRITE || i == WRITE + 1;
		if (late)
			CHECK(fcntl(fd[i], F_ADD_SEALS, seals[i]) == 0);
		m[i] = mmap(NULL, 4096, late ? PROT_READ : PROT_READ | PROT_WRITE, late ? MAP_PRIVATE : MAP_SHARED, fd[i], 0);
		CHECK(m[i] != MAP_FAILED);
		CHECK(fcntl(fd[i], F_ADD_SEALS, seals[i]) == 0 || (errno == EPERM && late));
	}
	while (point()) {
		for (int i = 0; i < N; i++) {
			CHECK_EQ(fcntl(fd[i], F_GET_SEALS), seals[i]);
			CHECK(memcmp(m[i], "content", 7) == 0);
			CHECK((ftruncate(fd[i], 8192) == 0) == !(seals[i] & F_SEAL_GROW));
			CHECK((ftruncate(fd[i], 4096) == 0) == !(seals[i] & F_SEAL_SHRINK) || seals[i] & F_SEAL_GROW);
			CHECK((pwrite(fd[i], "c", 1, 0) == 1) == !(seals[i] & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)));
		}
		m[FUTURE][8] = ++turn;
		char got;
		CHECK_EQ(pread(fd[FUTURE], &got, 1, 8), 1);
		CHECK(got == turn);
		CHECK(fcntl(fd[N - 1], F_ADD_SEALS, F_SEAL_GROW) < 0 && errno == EPERM);
	}
	return done();
}
