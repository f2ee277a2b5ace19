/* host and domain name in UTS namespaces of their own, one of them shared by two
 * processes, one name not UTF-8
 * as: root
 */
#include "../object.h"
#include "pair.h"
#include <sched.h>
#include <sys/utsname.h>

static void check(const char *host, const char *domain)
{
	struct utsname u;

	CHECK(uname(&u) == 0);
	CHECK(strcmp(u.nodename, host) == 0);
	CHECK(strcmp(u.domainname, domain) == 0);
}

/* child checks its names whenever it is asked to. */
static void child(int own)
{
	const char *host = own ? "sec\xf6nd" : "first";

	if (own) {
		CHECK(unshare(CLONE_NEWUTS) == 0);
		CHECK(sethostname(host, strlen(host)) == 0);
	}
	do
		check(host, "example.org");
	while (pair_told(own));
}

int main(void)
{
	struct utsname before;

	ht_init();
	CHECK(uname(&before) == 0);
	CHECK(unshare(CLONE_NEWUTS) == 0);
	CHECK(sethostname("first", 5) == 0 && setdomainname("example.org", 11) == 0);
	pair_start(child);
	while (point()) {
		check("first", "example.org");
		pair_check();
	}
	pair_end();
	return done();
}
