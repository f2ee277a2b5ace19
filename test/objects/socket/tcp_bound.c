/* sockets that are neither connected nor listening, bound or not, and a refused connect */
#include "tcp.h"

int main(void)
{
	ht_init();
	union address a = v4(7016), none = v4(7017);
	int bound = tcp_socket(AF_INET, 0), fresh = tcp_socket(AF_INET6, SOCK_NONBLOCK);
	int failed = tcp_socket(AF_INET, SOCK_NONBLOCK);

	set_option(bound, SOL_SOCKET, SO_REUSEADDR, 1);
	CHECK(bind(bound, &a.sa, sizeof a.in) == 0);
	CHECK(connect(failed, &none.sa, sizeof none.in) < 0 && errno == EINPROGRESS);
	await_event(failed, POLLOUT);
	struct names n[2] = { names_of(bound), names_of(fresh) };

	while (point()) {
		check_names(bound, &n[0]);
		check_names(fresh, &n[1]);
		CHECK_EQ(option(bound, SOL_SOCKET, SO_REUSEADDR), 1);
		CHECK_EQ(fcntl(fresh, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
		CHECK(events_of(failed) & POLLERR);
	}
	CHECK_EQ(option(failed, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	CHECK(listen(bound, 1) == 0);
	struct conn c = connection(bound);
	talk(&c);
	return done();
}
