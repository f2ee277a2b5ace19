/* SO_PASSCRED: queued messages with the credentials of the two processes that
 * have sent them. */
#include "../socket.h"

static void from(int fd, const char *text, pid_t pid)
{
	char buf[100], control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = { buf, sizeof buf };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct ucred c;

	CHECK_EQ(recvmsg(fd, &h, MSG_DONTWAIT), strlen(text));
	CHECK(!memcmp(buf, text, strlen(text)));
	CHECK(CMSG_FIRSTHDR(&h) && CMSG_FIRSTHDR(&h)->cmsg_type == SCM_CREDENTIALS);
	memcpy(&c, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof c);
	CHECK_EQ(c.pid, pid);
	CHECK(c.uid == geteuid() && c.gid == getegid());
}

int main(void)
{
	int pair[2][2], order[2];
	char c;

	ht_init();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair[0]) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair[1]) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, order) == 0);
	for (int i = 0; i < 2; i++)
		set(pair[i][1], SOL_SOCKET, SO_PASSCRED, 1);
	pid_t child = fork();
	if (child == 0) {
		close(order[0]);
		while (read(order[1], &c, 1) == 1) {
			say(pair[0][0], "child");
			say(pair[1][0], "child");
			CHECK(write(order[1], "k", 1) == 1);
		}
		_exit(0);
	}
	for (int first = 1;; first = 0) {
		say(pair[0][0], "parent");
		say(pair[1][0], "parent");
		CHECK(write(order[0], "k", 1) == 1 && read(order[0], &c, 1) == 1);
		if (!point())
			break;
		for (int i = 0; i < 2; i++) {
			CHECK_EQ(option(pair[i][1], SOL_SOCKET, SO_PASSCRED), 1);
			from(pair[i][1], "parent", getpid());
			from(pair[i][1], "child", child);
			silent(pair[i][1]);
		}
		(void)first;
	}
	kill(child, SIGKILL);
	CHECK(waitpid(child, NULL, 0) == child);
	return done();
}
