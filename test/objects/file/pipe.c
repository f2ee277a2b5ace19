/* a pipe with content, between two processes that both write and read it */
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
	CHECK(pipe(p) == 0);
	struct peer c = fork_peer(check);
	CHECK_EQ(write(p[1], "first", 5), 5);
	while (point()) {
		CHECK_EQ(read(p[0], b, sizeof b), 5);
		CHECK(memcmp(b, "first", 5) == 0);
		peer_checks(&c);
		CHECK_EQ(read(p[0], b, sizeof b), 5);
		CHECK(memcmp(b, "child", 5) == 0);
		CHECK_EQ(write(p[1], "first", 5), 5);
	}
	peer_ends(&c);
	return done();
}
