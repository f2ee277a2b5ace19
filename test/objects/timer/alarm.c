/* alarm: far away, and about to ring */
#include "../object.h"

static volatile sig_atomic_t rung;
static void on_alarm(int sig) { (void)sig; rung = 1; }

int main(void)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };

	ht_init();
	sigaction(SIGALRM, &sa, NULL);
	alarm(1000);
	while (point()) {
		unsigned left = alarm(1);

		CHECK(left > 900 && left <= 1000);
		CHECK(!rung);
		while (!rung)
			ht_nap(5);
		rung = 0;
		CHECK_EQ(alarm(1000), 0);
	}
	return done();
}
