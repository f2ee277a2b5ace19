/* a byte out of band between others, beside the stream and in it */
#include "tcp.h"

static void check_mark(int fd, int want)
{
	int at;

	CHECK(ioctl(fd, SIOCATMARK, &at) == 0);
	CHECK_EQ(at, want);
}

int main(void)
{
	ht_init();
	struct conn c[2] = { connection_at(v4(7011)), connection_at(v4(7012)) };
	char b[16];

	set_option(c[1].fd[1], SOL_SOCKET, SO_OOBINLINE, 1);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(send(c[i].fd[0], "before", 6, 0), 6);
		CHECK_EQ(send(c[i].fd[0], "!", 1, MSG_OOB), 1);
		CHECK_EQ(send(c[i].fd[0], "behind", 6, 0), 6);
	}
	while (point()) {
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(option(c[i].fd[1], SOL_SOCKET, SO_OOBINLINE), i);
			CHECK(events_of(c[i].fd[1]) & POLLPRI);
			check_mark(c[i].fd[1], 0);
			CHECK_EQ(recv(c[i].fd[1], b, sizeof b, MSG_PEEK), 6);
			CHECK(memcmp(b, "before", 6) == 0);
		}
		CHECK_EQ(recv(c[0].fd[1], b, 1, MSG_OOB | MSG_PEEK), 1);
		CHECK_EQ(b[0], '!');
	}
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(recv(c[i].fd[1], b, 6, 0), 6);
		check_mark(c[i].fd[1], 1);
	}
	CHECK_EQ(recv(c[0].fd[1], b, 1, MSG_OOB), 1);
	CHECK_EQ(b[0], '!');
	CHECK_EQ(recv(c[0].fd[1], b, sizeof b, 0), 6);
	CHECK(memcmp(b, "behind", 6) == 0);
	CHECK_EQ(recv(c[1].fd[1], b, 7, MSG_WAITALL), 7);
	CHECK(memcmp(b, "!behind", 7) == 0);
	return done();
}
