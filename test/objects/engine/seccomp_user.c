/* an ordinary user may not read a seccomp filter
 * as: user
 * refused: seccomp filter
 */
#include "../object.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

int main(void)
{
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog prog = { 1, code };

	ht_init();
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0);
	while (point())
		CHECK_EQ(prctl(PR_GET_SECCOMP), SECCOMP_MODE_FILTER);
	return done();
}
