/* a connect that has no answer yet, as the listener's queue is full */
#include "tcp.h"

int main(void)
{
	ht_init();
	int l = listen_at(v4(7015), 0);
	int waiting = connect_own(names_of(l).own), fd = own_socket(SOCK_NONBLOCK);
	union address a = names_of(l).own;

	CHECK(connect(fd, &a.sa, sizeof a.in) < 0 && errno == EINPROGRESS);
	CHECK_EQ(state_of(fd), TCP_SYN_SENT);
	struct names n = names_of(fd);

	while (point()) {
		check_names(fd, &n);
		CHECK_EQ(state_of(fd), TCP_SYN_SENT);
		CHECK(!(events_of(fd) & POLLERR));
	}
	struct conn first = { .fd = { waiting, accept(l, NULL, NULL) } };
	CHECK(first.fd[1] >= 0);
	talk(&first);
	struct pollfd p = { fd, POLLOUT, 0 };
	CHECK_EQ(poll(&p, 1, 60000), 1);
	CHECK_EQ(option(fd, SOL_SOCKET, SO_ERROR), 0);
	struct conn second = { .fd = { fd, accept(l, NULL, NULL) } };
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(fd, F_SETFL, 0) == 0);
	talk(&second);
	return done();
}
