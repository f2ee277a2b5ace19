/* real-time policies with their priorities, and deadline scheduling with its three times
 * as: root
 */
#include "../object.h"
#include "team.h"
#include <sched.h>

struct attr { /* struct sched_attr of sched_setattr(2) */
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static const struct attr want[] = {
	{ .policy = SCHED_RR, .priority = 3 },
	{ .policy = SCHED_FIFO, .priority = 7 },
	{ .policy = 6 /* SCHED_DEADLINE */, .runtime = 5000000, .deadline = 20000000, .period = 50000000 },
};

static void set(int n)
{
	struct attr a = want[n];

	a.size = sizeof a;
	CHECK(syscall(SYS_sched_setattr, 0, &a, 0) == 0);
}

static void check(int n)
{
	struct attr a;

	CHECK(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) == 0);
	CHECK_EQ(a.policy, want[n].policy);
	CHECK_EQ(a.priority, want[n].priority);
	if (want[n].runtime) {
		CHECK_EQ(a.runtime, want[n].runtime);
		CHECK_EQ(a.deadline, want[n].deadline);
		CHECK_EQ(a.period, want[n].period);
	}
}

int main(void)
{
	ht_init();
	team_start(2, set, check);
	set(0);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
