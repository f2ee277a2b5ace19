/* the nice value of the session's group of processes, sched(7) */
#include "../object.h"
#include <sys/wait.h>

static int autogroup(void)
{
	int id, nice;
	FILE *f = fopen("/proc/self/autogroup", "r");

	CHECK(f && fscanf(f, "/autogroup-%d nice %d", &id, &nice) == 2 && fclose(f) == 0);
	return nice;
}

int main(void)
{
	int p[2], q[2], status;
	char c = 0;

	ht_init();
	if (access("/proc/self/autogroup", R_OK) != 0) { /* CONFIG_SCHED_AUTOGROUP */
		while (point())
			;
		return done();
	}
	CHECK(pipe(p) == 0 && pipe(q) == 0);
	pid_t child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		CHECK(setsid() == getpid());
		close(p[1]);
		FILE *f;
		int ok;
		do { /* once in 0.1 s for all users */
			f = fopen("/proc/self/autogroup", "w");
			CHECK(f && fprintf(f, "5") > 0);
			ok = fclose(f) == 0;
			CHECK(ok || errno == EAGAIN);
			if (!ok)
				ht_nap(10);
		} while (!ok);
		do {
			CHECK_EQ(autogroup(), 5);
			CHECK(write(q[1], &c, 1) == 1);
		} while (read(p[0], &c, 1) == 1);
		_exit(0);
	}
	CHECK(read(q[0], &c, 1) == 1);
	while (point()) {
		CHECK_EQ(autogroup(), 0);
		CHECK(write(p[1], &c, 1) == 1 && read(q[0], &c, 1) == 1);
	}
	close(p[1]);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	return done();
}
