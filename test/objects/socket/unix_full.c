/* Queues over the default size, full of small and of large messages. */
#include "../socket.h"

static long fill(int fd, int size, uint64_t seed)
{
	static char buf[60000];
	long n = 0;

	for (;; n++) {
		for (int i = 0; i < size; i += 8) {
			uint64_t v = ht_random(&seed);
			memcpy(buf + i, &v, 8);
		}
		if (send(fd, buf, size, MSG_DONTWAIT) != size)
			break;
	}
	CHECK(errno == EAGAIN);
	return n;
}

static void drain(int fd, int size, uint64_t seed, long n)
{
	static char buf[60000];

	while (n--) {
		CHECK_EQ(recv(fd, buf, size, MSG_DONTWAIT | MSG_WAITALL), size);
		for (int i = 0; i < size; i += 8) {
			uint64_t v = ht_random(&seed);
			CHECK(!memcmp(buf + i, &v, 8));
		}
	}
}

int main(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET }, sizes[] = { 8, 59992 };
	int pair[3][2][2], buffer[3][2];
	long n[3][2];

	ht_init();
	for (int i = 0; i < 3; i++)
		for (int j = 0; j < 2; j++) {
			CHECK(socketpair(AF_UNIX, types[i], 0, pair[i][j]) == 0);
			set(pair[i][j][0], SOL_SOCKET, SO_SNDBUF, 400000);
			buffer[i][j] = option(pair[i][j][0], SOL_SOCKET, SO_SNDBUF);
			n[i][j] = fill(pair[i][j][0], sizes[j], i + 1);
			CHECK(n[i][j] > 0);
		}
	while (point())
		for (int i = 0; i < 3; i++)
			for (int j = 0; j < 2; j++) {
				CHECK_EQ(option(pair[i][j][0], SOL_SOCKET, SO_SNDBUF), buffer[i][j]);
				drain(pair[i][j][1], sizes[j], i + 1, n[i][j]);
				if (types[i] != SOCK_STREAM)
					silent(pair[i][j][1]);
				char rest[60000];
				while (recv(pair[i][j][1], rest, sizeof rest, MSG_DONTWAIT) > 0)
					;
				CHECK_EQ(fill(pair[i][j][0], sizes[j], i + 1), n[i][j]);
			}
	return done();
}
