/* a pipe that was opened again through /proc/self/fd, for both directions */
#include "file.h"

int main(void)
{
	int p[2];
	char name[64], b[8];

	ht_init();
	CHECK(pipe(p) == 0);
	snprintf(name, sizeof name, "/proc/self/fd/%d", p[0]);
	int both = open(name, O_RDWR | O_NONBLOCK), reader = open(name, O_RDONLY);
	CHECK(both >= 0 && reader >= 0);
	int fl = fcntl(both, F_GETFL);
	while (point()) {
		CHECK_EQ(fcntl(both, F_GETFL), fl);
		CHECK(same_file(both, p[0]) && same_file(reader, p[1]));
		CHECK_EQ(write(both, "abc", 3), 3);
		CHECK_EQ(read(reader, b, 1), 1);
		CHECK_EQ(read(both, b, 1), 1);
		CHECK_EQ(read(p[0], b, 1), 1);
		CHECK(b[0] == 'c');
		CHECK(read(both, b, 1) < 0 && errno == EAGAIN);
	}
	return done();
}
