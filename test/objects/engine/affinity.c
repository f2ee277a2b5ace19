/* each thread is bound to a processor of its own, the first to none */
#include "../object.h"
#include "team.h"
#include <sched.h>

static cpu_set_t all;

static cpu_set_t own(int n)
{
	cpu_set_t s;

	CPU_ZERO(&s);
	for (int cpu = 0; ; cpu = (cpu + 1) % CPU_SETSIZE)
		if (CPU_ISSET(cpu, &all) && n-- == 0) {
			CPU_SET(cpu, &s);
			return s;
		}
}

static void set(int n)
{
	cpu_set_t want = own(n);

	CHECK(sched_setaffinity(0, sizeof want, &want) == 0);
}

static void check(int n)
{
	cpu_set_t want = own(n), now;

	CHECK(sched_getaffinity(0, sizeof now, &now) == 0);
	CHECK(CPU_EQUAL(&now, &want));
}

int main(void)
{
	cpu_set_t now;

	ht_init();
	CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
	team_start(3, set, check);
	while (point()) {
		CHECK(sched_getaffinity(0, sizeof now, &now) == 0);
		CHECK(CPU_EQUAL(&now, &all));
		team_check();
	}
	team_end();
	return done();
}
