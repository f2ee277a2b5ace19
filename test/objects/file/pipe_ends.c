/* the ends of a pipe in two processes: end of file when the writer has gone */
#include "file.h"

static int p[2];

static void check(void)
{
	CHECK_EQ(write(p[1], "child", 5), 5);
}

int main(void)
{
	char b[32];

	ht_init();
	CHECK(pipe2(p, O_CLOEXEC) == 0);
	struct peer c = fork_peer(check);
	close(p[1]);
	while (point()) {
		peer_checks(&c);
		CHECK_EQ(read(p[0], b, sizeof b), 5);
	}
	peer_ends(&c);
	CHECK_EQ(read(p[0], b, sizeof b), 0);
	return done();
}
