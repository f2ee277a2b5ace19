/* all limits of resources, soft and hard */
#include "../object.h"
#include <sys/resource.h>

int main(void)
{
	struct rlimit want[RLIM_NLIMITS], now;

	ht_init();
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		CHECK(getrlimit(i, &want[i]) == 0);
		if (want[i].rlim_max == RLIM_INFINITY)
			want[i].rlim_max = (1ULL << 40) + i * 4096;
		if (i == RLIMIT_NOFILE)
			want[i].rlim_max = 300;
		if (want[i].rlim_cur > want[i].rlim_max || i == RLIMIT_CPU)
			want[i].rlim_cur = want[i].rlim_max - want[i].rlim_max / 10;
		CHECK(setrlimit(i, &want[i]) == 0);
	}
	while (point())
		for (int i = 0; i < RLIM_NLIMITS; i++) {
			CHECK(getrlimit(i, &now) == 0);
			CHECK_EQ(now.rlim_cur, want[i].rlim_cur);
			CHECK_EQ(now.rlim_max, want[i].rlim_max);
		}
	return done();
}
