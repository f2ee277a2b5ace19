/* a file of a process that has ended
 * refused: which is not a living one of the computation
 */
#include "file.h"

static void check(void) {}

int main(void)
{
	char name[64], b[16];

	ht_init();
	struct peer p = fork_peer(check);
	snprintf(name, sizeof name, "/proc/%d/status", p.pid);
	int fd = open(name, O_RDONLY);
	CHECK(fd >= 0);
	peer_ends(&p);
	while (point())
		CHECK(pread(fd, b, sizeof b, 0) < 0 && errno == ESRCH);
	return done();
}
