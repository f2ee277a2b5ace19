/* sockets whose connect was refused: unknown to the program yet, known by
 * SO_ERROR, and by connect itself; each connects in the end
 * network: own
 * needs: ip unshare
 */
#include "tcp.h"

static int refused(union address to, int flags)
{
	int fd = tcp_socket(AF_INET, flags);
	int e = connect(fd, &to.sa, sizeof to.in) == 0 ? 0 : errno;

	CHECK_EQ(e, flags ? EINPROGRESS : ECONNREFUSED);
	return fd;
}

/* is_free says whether the port that getsockname shows is nobody's: a connect that
 * was refused has given it back. */
static int is_free(int fd)
{
	union address own = names_of(fd).own;
	int other = tcp_socket(AF_INET, 0), ok;

	own.in.sin_addr.s_addr = 0;
	ok = own.in.sin_port == 0 || bind(other, &own.sa, sizeof own.in) == 0;
	close(other);
	return ok;
}

/* retry connects as a program does whose server is not there yet. */
static void retry(int fd, union address to)
{
	for (int i = 0; i < 100; i++) {
		if (connect(fd, &to.sa, sizeof to.in) == 0 || errno == EISCONN)
			return;
		CHECK(errno == ECONNREFUSED || errno == ECONNABORTED || errno == EINPROGRESS || errno == EALREADY);
		ht_nap(10);
	}
	FAIL("it does not connect: %s", strerror(errno));
}

int main(void)
{
	ht_init();
	union address to = v4(7016), bound = v4(7017);
	int fd[4] = { refused(to, SOCK_NONBLOCK), refused(to, SOCK_NONBLOCK), refused(to, 0), tcp_socket(AF_INET, SOCK_NONBLOCK) };

	await_event(fd[1], POLLOUT);
	CHECK_EQ(option(fd[1], SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	CHECK(bind(fd[3], &bound.sa, sizeof bound.in) == 0);
	CHECK(connect(fd[3], &to.sa, sizeof to.in) < 0 && errno == EINPROGRESS);
	while (point()) {
		CHECK(events_of(fd[0]) & POLLERR);
		CHECK(!(events_of(fd[1]) & POLLERR) && events_of(fd[1]) & POLLHUP);
		CHECK(!(events_of(fd[2]) & POLLERR));
		CHECK(events_of(fd[3]) & POLLERR);
		for (int i = 0; i < 3; i++)
			CHECK(is_free(fd[i]));
		check_address("what is bound", names_of(fd[3]).own, bound);
		CHECK(!is_free(fd[3]));
	}
	int l = listen_at(to, 5);
	for (int i = 0; i < 4; i++) {
		retry(fd[i], to);
		struct conn c = { .fd = { fd[i], accept(l, NULL, NULL) } };
		CHECK(fcntl(fd[i], F_SETFL, 0) == 0);
		talk(&c);
	}
	return done();
}
