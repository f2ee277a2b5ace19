/* a FIFO whose writer is a process outside of the tree
 * beside: itself
 * refused: its write end is held by a process outside the computation
 */
#include "file.h"

int main(int argc, char **argv)
{
	int outside = beside(argc, argv);
	char b;

	ht_init();
	CHECK(mkfifo(ht_path("fifo"), 0600) == 0 || errno == EEXIST);
	int fd = open(ht_path("fifo"), (outside ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	CHECK(fd >= 0);
	if (outside) {
		CHECK_EQ(write(fd, "a", 1), 1);
		for (;;)
			pause();
	}
	CHECK(read(fd, &b, 1) == 1 && b == 'a');
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while (point())
		CHECK(read(fd, &b, 1) == -1 && errno == EAGAIN); /* the writer is still there */
	return done();
}
