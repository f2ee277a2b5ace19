/* epoll: EPOLLONESHOT, armed and fired, whether the file is ready or not */
#include "../object.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int ep;

static void control(int op, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	CHECK_EQ(epoll_ctl(ep, op, fd, &ev), 0);
}

int main(void)
{
	struct epoll_event ev[8];
	int ready[2], idle[2], pair[2];
	uint64_t n = 1;
	char c;

	ht_init();
	ep = epoll_create1(0);
	CHECK_EQ(pipe(ready), 0);
	CHECK_EQ(pipe(idle), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	int armed = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(write(ready[1], "x", 1), 1);
	CHECK_EQ(write(idle[1], "x", 1), 1);
	CHECK_EQ(write(pair[1], "x", 1), 1);
	control(EPOLL_CTL_ADD, ready[0], EPOLLIN | EPOLLONESHOT, 1);
	control(EPOLL_CTL_ADD, idle[0], EPOLLIN | EPOLLONESHOT | EPOLLET, 2);
	control(EPOLL_CTL_ADD, pair[0], EPOLLIN | EPOLLONESHOT, 3);
	CHECK_EQ(epoll_wait(ep, ev, 8, 0), 3);
	CHECK_EQ(read(idle[0], &c, 1), 1); /* one is at work on these */
	CHECK_EQ(read(pair[0], &c, 1), 1);
	control(EPOLL_CTL_ADD, armed, EPOLLIN | EPOLLONESHOT, 4);
	while (point()) {
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 0);
		CHECK_EQ(write(idle[1], "y", 1), 1); /* nobody is to hear of it yet */
		CHECK_EQ(write(armed, &n, sizeof n), sizeof n);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 4);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 0);
		control(EPOLL_CTL_MOD, idle[0], EPOLLIN | EPOLLONESHOT | EPOLLET, 5);
		CHECK_EQ(epoll_wait(ep, ev, 8, 0), 1);
		CHECK_EQ(ev[0].data.u64, 5);
		CHECK_EQ(read(idle[0], &c, 1), 1);
		CHECK_EQ(c, 'y');
		CHECK_EQ(read(armed, &n, sizeof n), sizeof n);
		control(EPOLL_CTL_MOD, armed, EPOLLIN | EPOLLONESHOT, 4);
	}
	close(idle[1]); /* a hang-up is no news for a registration that has fired */
	close(pair[1]);
	CHECK_EQ(epoll_wait(ep, ev, 8, 0), 0);
	return done();
}
