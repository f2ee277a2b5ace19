/* a classic filter on a connection, locked
 * as: root
 *
 * For others the attaching may fail, where the memory for compiled filters is used up
 * (net.core.bpf_jit_limit).
 */
#include "tcp.h"
#include <linux/filter.h>

int main(void)
{
	ht_init();
	struct conn c = connection_at(v4(7022));
	struct sock_filter code[2] = { { 0x80, 0, 0, 0 }, { 0x6, 0, 0, 0xffff } }, got[2];
	struct sock_fprog program = { 2, code };

	CHECK(setsockopt(c.fd[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
	set_option(c.fd[1], SOL_SOCKET, SO_LOCK_FILTER, 1);
	while (point()) {
		socklen_t n = 2;

		CHECK(getsockopt(c.fd[1], SOL_SOCKET, SO_GET_FILTER, got, &n) == 0);
		CHECK_EQ(n, 2);
		CHECK(memcmp(got, code, sizeof got) == 0);
		CHECK_EQ(option(c.fd[1], SOL_SOCKET, SO_LOCK_FILTER), 1);
		talk(&c);
	}
	return done();
}
