/* memory policies of threads, set_mempolicy(2) */
#include "../object.h"
#include "team.h"
#include <linux/mempolicy.h>

static const int want[] = { MPOL_INTERLEAVE, MPOL_BIND | MPOL_F_STATIC_NODES, MPOL_PREFERRED, MPOL_LOCAL };

static void set(int n)
{
	unsigned long node = 1;
	int none = want[n] == MPOL_LOCAL;

	CHECK(syscall(SYS_set_mempolicy, want[n], none ? NULL : &node, none ? 0 : 64) == 0);
}

static void check(int n)
{
	unsigned long nodes[16] = { 0 };
	int mode;

	CHECK(syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8 + 1, NULL, 0) == 0);
	CHECK_EQ(mode, want[n]);
	CHECK_EQ(nodes[0], want[n] != MPOL_LOCAL);
}

int main(void)
{
	ht_init();
	team_start(3, set, check);
	set(0);
	while (point()) {
		check(0);
		team_check();
	}
	team_end();
	return done();
}
