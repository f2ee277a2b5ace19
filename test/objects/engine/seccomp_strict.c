/* a thread in strict mode, which may only read, write and exit
 * as: root
 */
#include "../object.h"
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

static int to[2], from[2];

static void *thread(void *arg)
{
	char c;

	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
	while (syscall(SYS_read, to[0], &c, 1) == 1 && c != 'e')
		syscall(SYS_write, from[1], &c, 1);
	syscall(SYS_exit, 0);
	return arg;
}

int main(void)
{
	pthread_t t;
	char c, status[2048];

	ht_init();
	CHECK(pipe(to) == 0 && pipe(from) == 0);
	CHECK(pthread_create(&t, NULL, thread, NULL) == 0);
	CHECK(write(to[1], "c", 1) == 1 && read(from[0], &c, 1) == 1);
	while (point()) {
		CHECK(write(to[1], "c", 1) == 1 && read(from[0], &c, 1) == 1 && c == 'c');
		FILE *p = popen("cat /proc/$PPID/task/*/status | grep -c '^Seccomp:.1'", "r");
		CHECK(p && fgets(status, sizeof status, p) && pclose(p) == 0);
		CHECK_EQ(atoi(status), 1);
	}
	CHECK(write(to[1], "e", 1) == 1);
	return done();
}
