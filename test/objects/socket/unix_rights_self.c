/* A socket in flight in itself, and two in flight in each other. */
#include "../socket.h"

int main(void)
{
	int self[2], a[2], b[2], fds[16];
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, self) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, a) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, b) == 0);
	send_fds(self[0], "s", 1, self, 2);
	send_fds(a[0], "b", 1, b, 2);
	send_fds(b[0], "a", 1, a, 2);
	close(b[0]);
	close(b[1]);
	while (point()) {
		CHECK_EQ(recv_fds(self[1], &c, 1, 1, fds), 2);
		CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[0], self[0]) == 0);
		CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[1], self[1]) == 0);
		close(fds[0]);
		close(fds[1]);
		send_fds(self[0], "s", 1, self, 2);

		CHECK_EQ(recv_fds(a[1], &c, 1, 1, b), 2);
		CHECK_EQ(recv_fds(b[1], &c, 1, 1, fds), 2);
		CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, fds[1], a[1]) == 0);
		close(fds[0]);
		close(fds[1]);
		send_fds(a[0], "b", 1, b, 2);
		send_fds(b[0], "a", 1, a, 2);
		close(b[0]);
		close(b[1]);
	}
	return done();
}
