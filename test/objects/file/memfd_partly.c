/* a memfd: one process has it open, two have mapped parts of it */
#include "file.h"

static char *child;

static void check(void)
{
	CHECK(child[0] == '2');
	child[1] = 'c';
}

int main(void)
{
	ht_init();
	int fd = memfd_create("parts", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 4 * 4096) == 0);
	char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 2 * 4096);
	char *all = mmap(NULL, 4 * 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED && all != MAP_FAILED);
	child = m;
	struct peer p = fork_peer(check);
	while (point()) {
		m[0] = '2';
		m[1] = 'p';
		CHECK_EQ(pwrite(fd, "far", 3, 3 * 4096), 3);
		peer_checks(&p);
		CHECK(m[1] == 'c' && all[2 * 4096 + 1] == 'c' && all[3 * 4096] == 'f');
		CHECK_EQ(stat_of(fd).st_size, 4 * 4096);
		CHECK(mprotect(m, 4096, PROT_READ | PROT_WRITE) == 0);
	}
	peer_ends(&p);
	return done();
}
