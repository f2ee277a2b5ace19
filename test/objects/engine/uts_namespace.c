/* host and domain name in UTS namespaces of their own, one of them shared by two
 * processes, one name not UTF-8
 * as: root
 */
#include "../object.h"
#include <sched.h>
#include <sys/utsname.h>
#include <sys/wait.h>

static void check(const char *host, const char *domain)
{
	struct utsname u;

	CHECK(uname(&u) == 0);
	CHECK(strcmp(u.nodename, host) == 0);
	CHECK(strcmp(u.domainname, domain) == 0);
}

/* child checks its names whenever it is asked to. */
static void child(int in, int out, int own, const char *host)
{
	char c;

	if (own) {
		CHECK(unshare(CLONE_NEWUTS) == 0);
		CHECK(sethostname(host, strlen(host)) == 0);
	}
	do
		check(host, "example.org");
	while (write(out, "c", 1) == 1 && read(in, &c, 1) == 1);
	_exit(0);
}

int main(void)
{
	struct utsname before;
	int p[2][2], q[2];
	char c;

	ht_init();
	CHECK(uname(&before) == 0);
	CHECK(pipe(q) == 0);
	CHECK(unshare(CLONE_NEWUTS) == 0);
	CHECK(sethostname("first", 5) == 0 && setdomainname("example.org", 11) == 0);
	for (int i = 0; i < 2; i++) {
		CHECK(pipe(p[i]) == 0);
		if (fork() == 0) {
			for (int k = 0; k <= i; k++)
				close(p[k][1]);
			child(p[i][0], q[1], i, i ? "sec\xf6nd" : "first");
		}
		CHECK(read(q[0], &c, 1) == 1);
	}
	while (point()) {
		check("first", "example.org");
		for (int i = 0; i < 2; i++)
			CHECK(write(p[i][1], "c", 1) == 1 && read(q[0], &c, 1) == 1);
	}
	for (int i = 0; i < 2; i++)
		close(p[i][1]);
	for (int i = 0; i < 2; i++) {
		int status;
		CHECK(wait(&status) > 0 && status == 0);
	}
	return done();
}
