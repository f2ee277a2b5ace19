/* SO_PEERCRED shows who called socketpair, connect and listen, in two
 * processes. */
#include "../socket.h"

static pid_t peer(int fd)
{
	struct ucred c;
	socklen_t len = sizeof c;

	CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) == 0);
	CHECK(c.uid == geteuid() && c.gid == getegid());
	return c.pid;
}

int main(void)
{
	int pair[2], dgram[2], ready[2];
	char c;

	ht_init();
	const char *name = abstract("l");
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0);
	CHECK(pipe(ready) == 0);
	int l = unix_listener(SOCK_STREAM, name);
	pid_t parent = getpid(), child = fork();

	if (child == 0) {
		int client = unix_socket(SOCK_STREAM, NULL);

		unix_connect(client, name);
		while (read(pair[1], &c, 1) == 1) {
			CHECK_EQ(peer(client), parent);
			CHECK_EQ(peer(pair[1]), parent);
			CHECK(write(ready[1], "k", 1) == 1);
		}
		_exit(0);
	}
	int server = accept(l, NULL, NULL);
	while (point()) {
		CHECK_EQ(peer(server), child);
		CHECK_EQ(peer(pair[0]), parent);
		CHECK_EQ(peer(dgram[0]), parent);
		CHECK_EQ(peer(l), parent);
		CHECK(write(pair[0], "k", 1) == 1);
		CHECK(read(ready[0], &c, 1) == 1);
	}
	kill(child, SIGKILL);
	CHECK(waitpid(child, NULL, 0) == child);
	return done();
}
