/* Socket files: deleted ones, one by a relative path, renamed ones, and a path
 * that has had two sockets. */
#include "../socket.h"

static int client_of(const char *path)
{
	int fd = unix_socket(SOCK_STREAM, NULL);

	unix_connect(fd, path);
	return fd;
}

int main(void)
{
	char path[4][108];
	struct stat st;

	ht_init();
	CHECK(chdir(ht_dir) == 0);
	for (int i = 0; i < 4; i++) {
		char n[] = { 'p', '0' + i, 0 };
		strcpy(path[i], ht_path(n));
	}
	int deleted = unix_listener(SOCK_STREAM, path[0]);
	int client = client_of(path[0]), server = accept(deleted, NULL, NULL);
	CHECK(unlink(path[0]) == 0);
	int relative = unix_listener(SOCK_STREAM, "relative");
	CHECK(chmod("relative", 0640) == 0);
	int relative_gone = unix_socket(SOCK_DGRAM, "../gone");
	CHECK(unlink("../gone") == 0);
	int renamed = unix_listener(SOCK_STREAM, path[1]);
	CHECK(rename(path[1], path[2]) == 0);
	int former = unix_listener(SOCK_STREAM, path[3]);
	int client2 = client_of(path[3]), server2 = accept(former, NULL, NULL);
	close(former);
	CHECK(unlink(path[3]) == 0);
	int latter = unix_listener(SOCK_STREAM, path[3]);

	while (point()) {
		is_named(deleted, path[0]);
		is_named(server, path[0]);
		is_connected(client, path[0]);
		CHECK(access(path[0], F_OK) < 0);
		say(client, "x");
		hears(server, "x");
		is_named(relative, "relative");
		CHECK(stat("relative", &st) == 0 && st.st_mode == (S_IFSOCK | 0640) && st.st_uid == geteuid());
		int fd = client_of("relative");
		close(accept(relative, NULL, NULL));
		close(fd);
		is_named(relative_gone, "../gone");
		CHECK(access("../gone", F_OK) < 0);
		is_named(renamed, path[1]);
		CHECK(access(path[1], F_OK) < 0);
		fd = client_of(path[2]);
		close(accept(renamed, NULL, NULL));
		close(fd);
		is_named(server2, path[3]);
		say(client2, "y");
		hears(server2, "y");
		fd = client_of(path[3]);
		close(accept(latter, NULL, NULL));
		close(fd);
	}
	return done();
}
