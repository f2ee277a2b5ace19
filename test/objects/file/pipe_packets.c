/* packet mode (O_DIRECT): borders of packets, also of a single one */
#include "file.h"

static void fill(int p[2], int q[2])
{
	CHECK_EQ(write(p[1], "one", 3), 3);
	CHECK_EQ(write(p[1], "second", 6), 6);
	CHECK_EQ(write(p[1], "3", 1), 1);
	CHECK_EQ(write(q[1], "alone", 5), 5);
}

int main(void)
{
	int p[2], q[2];
	char b[16];

	ht_init();
	CHECK(pipe2(p, O_DIRECT | O_NONBLOCK) == 0 && pipe2(q, O_DIRECT | O_NONBLOCK) == 0);
	fill(p, q);
	while (point()) {
		CHECK(fcntl(p[1], F_GETFL) & O_DIRECT);
		CHECK_EQ(read(p[0], b, sizeof b), 3);
		CHECK_EQ(read(p[0], b, 2), 2);
		CHECK_EQ(read(p[0], b, sizeof b), 1);
		CHECK(b[0] == '3');
		CHECK(read(p[0], b, 1) < 0 && errno == EAGAIN);
		CHECK_EQ(read(q[0], b, 2), 2);
		CHECK(read(q[0], b, 1) < 0 && errno == EAGAIN);
		fill(p, q);
	}
	return done();
}
