/* oom_score_adj, which an ordinary user may only raise */
#include "../object.h"

int main(void)
{
	int got;

	ht_init();
	FILE *f = fopen("/proc/self/oom_score_adj", "w");
	CHECK(f && fprintf(f, "321") > 0 && fclose(f) == 0);
	while (point()) {
		f = fopen("/proc/self/oom_score_adj", "r");
		CHECK(f && fscanf(f, "%d", &got) == 1 && fclose(f) == 0);
		CHECK_EQ(got, 321);
	}
	return done();
}
