/* Connections by path, by abstract name with zero bytes, and by autobind:
 * what getsockname and getpeername give. */
#include "../socket.h"

int main(void)
{
	char path[108], client_path[108];
	const char *name = abstract("a");
	struct sockaddr_un zeros, automatic = { .sun_family = AF_UNIX }, got;
	socklen_t zeros_len, auto_len = sizeof automatic, len;

	ht_init();
	strcpy(path, ht_path("s"));
	strcpy(client_path, ht_path("c"));
	zeros = unix_addr("\0h\0z\0\0", 6, &zeros_len);
	zeros.sun_path[1] = getpid();
	zeros.sun_path[2] = getpid() >> 8;

	int by_path = unix_listener(SOCK_STREAM, path), by_name = unix_listener(SOCK_SEQPACKET, name);
	int client = unix_socket(SOCK_STREAM, client_path), client2 = unix_socket(SOCK_SEQPACKET, NULL);
	unix_connect(client, path);
	unix_connect(client2, name);
	int server = accept(by_path, NULL, NULL), server2 = accept(by_name, NULL, NULL);
	int odd = socket(AF_UNIX, SOCK_DGRAM, 0), autobound = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(bind(odd, (void *)&zeros, zeros_len) == 0);
	CHECK(bind(autobound, (void *)&automatic, sizeof(sa_family_t)) == 0);
	CHECK(getsockname(autobound, (void *)&automatic, &auto_len) == 0);
	CHECK_EQ(auto_len, sizeof(sa_family_t) + 6);

	while (point()) {
		is_named(by_path, path);
		is_named(by_name, name);
		is_named(client, client_path);
		is_connected(client, path);
		is_named(server, path);
		is_connected(server, client_path);
		is_named(client2, NULL);
		is_connected(client2, name);
		is_named(server2, name);
		is_connected(server2, NULL);
		len = sizeof got;
		CHECK(getsockname(odd, (void *)&got, &len) == 0);
		CHECK(len == zeros_len && !memcmp(&got, &zeros, len));
		len = sizeof got;
		CHECK(getsockname(autobound, (void *)&got, &len) == 0);
		CHECK(len == auto_len && !memcmp(&got, &automatic, len));
		say(client, "x");
		hears(server, "x");
		say(server2, "y");
		hears(client2, "y");
		CHECK(access(path, F_OK) == 0 && access(client_path, F_OK) == 0);
		int fresh = unix_socket(SOCK_STREAM, NULL);
		unix_connect(fresh, path);
		close(accept(by_path, NULL, NULL));
		close(fresh);
	}
	return done();
}
