/* timer_create: exact ids with gaps, and new ones that no timer had before */
#include "../object.h"

static int create(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_NONE };
	int id = -1;

	CHECK_EQ(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id), 0);
	return id;
}

static int exists(int id)
{
	struct itimerspec t;

	return syscall(SYS_timer_gettime, id, &t) == 0;
}

int main(void)
{
	ht_init();
	for (int i = 0; i < 300; i++)
		CHECK_EQ(create(), i);
	for (int i = 0; i < 300; i++)
		if (i % 100 != 50 && i != 299)
			CHECK_EQ(syscall(SYS_timer_delete, i), 0);
	for (int last = 299; point();) {
		for (int i = 0; i <= last; i++)
			CHECK_EQ(exists(i), i % 100 == 50 || i == last);
		int id = create();
		CHECK_EQ(id, last + 1);
		CHECK_EQ(syscall(SYS_timer_delete, last), 0);
		last = id;
		if (last % 100 == 50)
			break;
	}
	return done();
}
