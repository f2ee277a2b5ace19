/* a server with two children as clients: the ends are in different processes */
#include "tcp.h"
#include <sys/wait.h>

static void client(union address a)
{
	int fd = connect_to(a);
	char b[8];

	for (;;) {
		ssize_t n = recv(fd, b, sizeof b, 0);

		if (n <= 0)
			_exit(n == 0 ? 0 : 1);
		CHECK_EQ(send(fd, b, n, MSG_NOSIGNAL), n);
	}
}

int main(void)
{
	ht_init();
	int l = listen_at(v4(7021), 5), fd[2];
	pid_t pid[2];

	for (int i = 0; i < 2; i++) {
		pid[i] = fork();
		CHECK(pid[i] >= 0);
		if (pid[i] == 0)
			client(names_of(l).own);
		fd[i] = accept(l, NULL, NULL);
		CHECK(fd[i] >= 0);
	}
	while (point())
		for (int i = 0; i < 2; i++) {
			char b[4];

			CHECK_EQ(send(fd[i], "ping", 4, MSG_NOSIGNAL), 4);
			CHECK_EQ(recv(fd[i], b, 4, MSG_WAITALL), 4);
			CHECK(memcmp(b, "ping", 4) == 0);
		}
	for (int i = 0; i < 2; i++) {
		CHECK(shutdown(fd[i], SHUT_WR) == 0);
		close(fd[i]);
	}
	for (int i = 0; i < 2; i++) {
		int status;

		CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	return done();
}
