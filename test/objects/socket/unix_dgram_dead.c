/* A datagram socket that is connected to one that was closed: the name stays,
 * a message is refused. */
#include "../socket.h"

int main(void)
{
	char path[108];

	ht_init();
	strcpy(path, ht_path("d"));
	int fd[3];
	int dead = unix_socket(SOCK_DGRAM, path);
	for (int i = 0; i < 3; i++) {
		fd[i] = unix_socket(SOCK_DGRAM, NULL);
		unix_connect(fd[i], path);
	}
	close(dead);
	unlink(path);
	int taken = unix_socket(SOCK_DGRAM, path); /* another of the same name */
	for (int i = 0; point() && i < 3; i++) {
		is_connected(fd[i], path);
		CHECK(send(fd[i], "x", 1, 0) < 0 && errno == ECONNREFUSED);
		silent(taken);
		is_named(taken, path);
	}
	return done();
}
