/* flags of open(2), offsets and close-on-exec of regular files */
#include "file.h"

int main(void)
{
	static const int flags[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_APPEND, O_WRONLY | O_APPEND, O_RDWR | O_NONBLOCK,
				     O_RDWR | O_SYNC, O_RDWR | O_DSYNC, O_RDONLY | O_NOFOLLOW, O_RDWR | O_CREAT };
	enum { N = sizeof flags / sizeof flags[0] };
	int fd[N], fl[N];

	ht_init();
	close(make("f", O_RDWR, "0123456789abcdef"));
	for (int i = 0; i < N; i++) {
		fd[i] = open(ht_path("f"), flags[i] | (i % 2 ? O_CLOEXEC : 0), 0600);
		CHECK(fd[i] >= 0);
		fl[i] = fcntl(fd[i], F_GETFL);
		CHECK_EQ(lseek(fd[i], i, SEEK_SET), i);
	}
	while (point())
		for (int i = 0; i < N; i++) {
			CHECK_EQ(fcntl(fd[i], F_GETFL), fl[i]);
			CHECK_EQ(fcntl(fd[i], F_GETFD), i % 2 ? FD_CLOEXEC : 0);
			CHECK_EQ(lseek(fd[i], 0, SEEK_CUR), i);
			link_is(fd[i], ht_path("f"));
		}
	return done();
}
