/* the capacity of a pipe, and a pipe that is full */
#include "file.h"

enum { SIZE = 1 << 18 };

int main(void)
{
	int p[2], q[2];
	static char b[SIZE];

	ht_init();
	CHECK(pipe2(p, O_NONBLOCK) == 0 && pipe(q) == 0);
	CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, SIZE), SIZE);
	CHECK_EQ(fcntl(q[1], F_SETPIPE_SZ, 4096), 4096);
	do {
		CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), SIZE);
		CHECK_EQ(fcntl(q[0], F_GETPIPE_SZ), 4096);
		for (int i = 0; i < SIZE; i++)
			b[i] = i % 251;
		CHECK_EQ(write(p[1], b, SIZE), SIZE);
		CHECK(write(p[1], b, 1) < 0 && errno == EAGAIN);
		int more = point();
		CHECK(write(p[1], b, 1) < 0 && errno == EAGAIN);
		memset(b, 0, SIZE);
		CHECK_EQ(read(p[0], b, SIZE), SIZE);
		for (int i = 0; i < SIZE; i++)
			CHECK_EQ((unsigned char)b[i], i % 251);
		if (!more)
			return done();
	} while (1);
}
