/* Clients that wait to be accepted, in order, with the backlog. */
#include "../socket.h"

int main(void)
{
	char path[108];
	int client[3];
	struct ucred cred;
	socklen_t len;

	ht_init();
	strcpy(path, ht_path("s"));
	int l = unix_socket(SOCK_STREAM, path);
	CHECK(listen(l, 2) == 0);
	for (int i = 0; i < 3; i++) {
		client[i] = unix_socket(SOCK_STREAM, NULL);
		unix_connect(client[i], path);
	}
	while (point()) {
		int late = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		struct sockaddr_un a = unix_path(path, &len);
		CHECK(connect(late, (void *)&a, len) < 0 && errno == EAGAIN);
		close(late);
		for (int i = 0; i < 3; i++) {
			int server = accept(l, NULL, NULL);
			CHECK(server >= 0);
			len = sizeof cred;
			CHECK(getsockopt(server, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0);
			CHECK_EQ(cred.pid, getpid());
			char text[2] = { '0' + i, 0 };
			say(client[i], text);
			hears(server, text);
			close(server);
			close(client[i]);
		}
		for (int i = 0; i < 3; i++) {
			client[i] = unix_socket(SOCK_STREAM, NULL);
			unix_connect(client[i], path);
		}
	}
	return done();
}
