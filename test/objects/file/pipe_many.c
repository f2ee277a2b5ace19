/* more in pipes than pipe-user-pages-soft lets one user have: new ones are small then, pipe(7)
 * as: user
 * serial: the pipes of others get small too
 */
#include "file.h"

enum { SIZE = 1 << 20, MOST = 200 };

static int p[MOST][2];

int main(void)
{
	char b[8];
	int n = 0;

	ht_init();
	do
		CHECK(n < MOST && pipe2(p[n], O_NONBLOCK) == 0);
	while (fcntl(p[n++][1], F_SETPIPE_SZ, SIZE) == SIZE);
	CHECK_EQ(errno, EPERM);
	do {
		for (int i = 0; i < n; i++)
			CHECK_EQ(write(p[i][1], &i, sizeof i), (int)sizeof i);
		int more = point();
		for (int i = 0; i < n; i++) {
			CHECK_EQ(read(p[i][0], b, sizeof b), (int)sizeof i);
			CHECK_EQ(memcmp(b, &i, sizeof i), 0);
		}
		if (!more)
			return done();
	} while (1);
}
