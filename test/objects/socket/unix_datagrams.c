/* Datagrams with the names of their senders: connected and not, to a path and
 * an abstract name, from sockets that are gone and from one without a name. */
#include "../socket.h"

static char path[108], gone[108];
static const char *name;
static int receiver, connected, sender;

static void to(int fd, const char *text, const char *where)
{
	socklen_t len;
	struct sockaddr_un a = unix_path(where, &len);

	CHECK_EQ(sendto(fd, text, strlen(text), MSG_DONTWAIT, (void *)&a, len), strlen(text));
}

static void from(int fd, const char *text, const char *who)
{
	char buf[100];
	struct sockaddr_un a = { 0 }, want = { .sun_family = AF_UNIX };
	socklen_t len = sizeof a, want_len = 0;

	CHECK_EQ(recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (void *)&a, &len), strlen(text));
	CHECK(!memcmp(buf, text, strlen(text)));
	if (who)
		want = unix_path(who, &want_len);
	CHECK_EQ(len, want_len);
	CHECK(!memcmp(&a, &want, len));
}

static void fill(void)
{
	int fd = unix_socket(SOCK_DGRAM, gone);

	to(fd, "from the dead", path);
	to(sender, "from a name", path);
	close(fd);
	unlink(gone);
	fd = unix_socket(SOCK_DGRAM, NULL);
	to(fd, "from nobody", path);
	close(fd);
	to(connected, "back", name);
	to(sender, "forth", ht_path("c"));
}

int main(void)
{
	ht_init();
	name = abstract("s");
	strcpy(path, ht_path("r"));
	strcpy(gone, ht_path("g"));
	receiver = unix_socket(SOCK_DGRAM, path);
	sender = unix_socket(SOCK_DGRAM, name);
	connected = unix_socket(SOCK_DGRAM, ht_path("c"));
	unix_connect(connected, name);
	fill();
	while (point()) {
		char c[108];

		strcpy(c, ht_path("c"));
		is_named(receiver, path);
		is_named(connected, c);
		is_connected(connected, name);
		from(receiver, "from the dead", gone);
		from(receiver, "from a name", name);
		from(receiver, "from nobody", NULL);
		silent(receiver);
		from(sender, "back", c);
		from(connected, "forth", name);
		say(connected, "x");
		hears(sender, "x");
		CHECK(access(gone, F_OK) < 0);
		fill();
	}
	return done();
}
