/* a table of descriptors that two threads share, but not the process
 * refused: shares a descriptor table with thread
 */
#include "../object.h"
#include "team.h"
#include <sched.h>

static int own = -1;

static void *second(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void set(int n)
{
	pthread_t t;

	(void)n;
	CHECK(unshare(CLONE_FILES) == 0);
	own = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(own >= 0);
	CHECK(pthread_create(&t, NULL, second, NULL) == 0);
}

static void check(int n) { CHECK(fcntl(own, F_GETFD) == n); }

int main(void)
{
	ht_init();
	team_start(1, set, check);
	while (point()) {
		CHECK(fcntl(own, F_GETFD) == -1);
		team_check();
	}
	team_end();
	return done();
}
