/* shared anonymous memory of hugetlbfs, where the administrator has set pages
 * aside: of parent and child, written by a child that has ended, and at an
 * offset
 */
#include "../object.h"
#include <sys/mman.h>
#include <sys/wait.h>

#define HUGE (2L << 20)

int main(void)
{
	ht_init();
	char *p = mmap(NULL, 3 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	int has = p != MAP_FAILED;
	pid_t child = -1;
	int to[2], from[2];
	if (has) {
		for (long i = 0; i < HUGE; i += 4096)
			p[i] = i >> 12;
		pid_t gone = fork();
		CHECK(gone >= 0);
		if (gone == 0) {
			memset(p + 2 * HUGE, 7, HUGE);
			_exit(0);
		}
		CHECK_EQ(waitpid(gone, NULL, 0), gone);
		CHECK(pipe(to) == 0);
		CHECK(pipe(from) == 0);
		child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			char c;
			CHECK(munmap(p, HUGE) == 0);
			while (read(to[0], &c, 1) == 1) {
				p[HUGE] = p[HUGE] + 1;
				CHECK(write(from[1], &c, 1) == 1);
			}
			_exit(0);
		}
	}
	char rounds = 0;
	while (point()) {
		if (!has)
			continue;
		for (long i = 0; i < HUGE; i += 4096)
			CHECK_EQ(p[i], (char)(i >> 12));
		for (long i = 2 * HUGE; i < 3 * HUGE; i++)
			if (p[i] != 7)
				CHECK_EQ(p[i], 7);
		char c = 0;
		CHECK(write(to[1], "x", 1) == 1);
		CHECK_EQ(read(from[0], &c, 1), 1);
		rounds++;
		CHECK_EQ(p[HUGE], rounds);
	}
	if (has) {
		CHECK(close(to[1]) == 0);
		CHECK(kill(child, SIGKILL) == 0);
		CHECK_EQ(waitpid(child, NULL, 0), child);
	}
	return done();
}
