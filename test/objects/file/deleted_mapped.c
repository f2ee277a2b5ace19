/* a deleted file that two processes have mapped and none has open */
#include "file.h"

static volatile char *m;

static void check(void)
{
	CHECK(m[0] == 'p');
	m[0] = 'c';
}

int main(void)
{
	ht_init();
	int fd = make("f", O_RDWR, "parent");
	CHECK(ftruncate(fd, 8192) == 0);
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(m != MAP_FAILED);
	close(fd);
	CHECK(unlink(ht_path("f")) == 0);
	struct peer p = fork_peer(check);
	while (point()) {
		CHECK(memcmp((char *)m + 1, "arent", 6) == 0);
		m[0] = 'p';
		peer_checks(&p);
		CHECK(m[0] == 'c');
	}
	peer_ends(&p);
	return done();
}
