/* a memfd that two processes have mapped and none has open */
#include "file.h"

static volatile char *m;

static void check(void)
{
	CHECK(m[4096] == 'p');
	m[4096] = 'c';
}

int main(void)
{
	char line[512];

	ht_init();
	int fd = memfd_create("shared", 0), named = 0;
	CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	strcpy((char *)m, "content");
	close(fd);
	struct peer p = fork_peer(check);
	while (point()) {
		CHECK(strcmp((char *)m, "content") == 0);
		m[4096] = 'p';
		peer_checks(&p);
		CHECK(m[4096] == 'c');
		FILE *f = fopen("/proc/self/maps", "re");
		for (named = 0; fgets(line, sizeof line, f);)
			named |= strstr(line, " /memfd:shared (deleted)\n") != NULL;
		fclose(f);
		CHECK(named);
	}
	peer_ends(&p);
	return done();
}
