/* UDP queues that a new socket has no room for: in a larger receive buffer, and
 * in one that was made smaller behind what had come; empty datagrams last. */
#include "../socket.h"

enum { SIZE = 1000, COUNT = 150 };

static int sender;

/* receiver is a socket with a large receive buffer. */
static int receiver(struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof *at;

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CHECK(bind(fd, (void *)at, sizeof *at) == 0 && getsockname(fd, (void *)at, &len) == 0);
	set(fd, SOL_SOCKET, SO_RCVBUF, 212992); /* what every system allows; it is doubled */
	return fd;
}

static void fill(struct sockaddr_in to)
{
	char data[SIZE];

	for (int i = 0; i < COUNT; i++) {
		memset(data, i, sizeof data);
		CHECK_EQ(sendto(sender, data, sizeof data, 0, (void *)&to, sizeof to), SIZE);
	}
	for (int i = 0; i < 2; i++)
		CHECK_EQ(sendto(sender, "", 0, 0, (void *)&to, sizeof to), 0);
}

static void drain(int fd)
{
	char data[SIZE + 1];

	for (int i = 0; i < COUNT; i++) {
		CHECK_EQ(recv(fd, data, sizeof data, MSG_DONTWAIT), SIZE);
		for (int j = 0; j < SIZE; j++)
			CHECK_EQ((unsigned char)data[j], i);
	}
	for (int i = 0; i < 2; i++)
		CHECK_EQ(recv(fd, data, sizeof data, MSG_DONTWAIT), 0);
	silent(fd);
}

int main(void)
{
	struct sockaddr_in at[2];
	int fd[2], size[2];

	ht_init();
	sender = receiver(&at[0]);
	for (int i = 0; i < 2; i++)
		fd[i] = receiver(&at[i]);
	for (;;) {
		set(fd[1], SOL_SOCKET, SO_RCVBUF, 212992);
		for (int i = 0; i < 2; i++)
			fill(at[i]);
		set(fd[1], SOL_SOCKET, SO_RCVBUF, 5000);
		for (int i = 0; i < 2; i++)
			size[i] = option(fd[i], SOL_SOCKET, SO_RCVBUF);
		if (!point())
			break;
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(option(fd[i], SOL_SOCKET, SO_RCVBUF), size[i]);
			drain(fd[i]);
		}
	}
	return done();
}
