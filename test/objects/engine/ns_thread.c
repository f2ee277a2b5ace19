/* a thread, not its process, in a network namespace of its own
 * as: root
 * refused: net namespace
 */
#include "../object.h"
#include "team.h"
#include <sched.h>

static char link_of[2][64];

static void look(int n, char *to) { CHECK(readlink(n ? "/proc/thread-self/ns/net" : "/proc/self/ns/net", to, 63) > 0); }

static void set(int n)
{
	CHECK(unshare(CLONE_NEWNET) == 0);
	look(n, link_of[n]);
}

static void check(int n)
{
	char now[64] = "";

	look(n, now);
	CHECK(strcmp(now, link_of[n]) == 0);
}

int main(void)
{
	ht_init();
	team_start(1, set, check);
	look(0, link_of[0]);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
