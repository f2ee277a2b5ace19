/* the controls of speculative execution that the processor leaves to the thread */
#include "../object.h"
#include <sys/prctl.h>

int main(void)
{
	long want[3];

	ht_init();
	for (int i = 0; i < 3; i++) {
		want[i] = prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
		if (want[i] >= 0 && want[i] & PR_SPEC_PRCTL)
			CHECK(prctl(PR_SET_SPECULATION_CTRL, i, PR_SPEC_DISABLE, 0, 0) == 0);
		want[i] = prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
	}
	while (point())
		for (int i = 0; i < 3; i++)
			CHECK_EQ(prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0), want[i]);
	return done();
}
