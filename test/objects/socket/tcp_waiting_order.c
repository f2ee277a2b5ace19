/* Connections that wait to be accepted in the order in which they were made, which
 * is not that of their sockets' inodes: each processor takes these from a batch of
 * its own.
 */
#include "tcp.h"

#include <sched.h>

enum { CLIENTS = 6 };

/* use_cpu binds the process to the nth of its processors, round and round. */
static void use_cpu(const cpu_set_t *all, int n)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	n %= CPU_COUNT(all);
	for (int cpu = 0; ; cpu++)
		if (CPU_ISSET(cpu, all) && n-- == 0) {
			CPU_SET(cpu, &one);
			break;
		}
	CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
}

int main(void)
{
	ht_init();
	int l = listen_at(v4(7046), CLIENTS), client[CLIENTS];
	cpu_set_t all;

	CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
	for (int i = 0; i < CLIENTS; i++) {
		use_cpu(&all, i);
		client[i] = connect_own(names_of(l).own);
		await_tick(client[i]);
	}
	CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
	while (point())
		CHECK(events_of(l) & POLLIN);
	for (int i = 0; i < CLIENTS; i++) {
		struct conn c = { .fd = { client[i], accept(l, NULL, NULL) } };

		check_address("the next client", names_of(c.fd[1]).peer, names_of(client[i]).own);
		talk(&c);
	}
	return done();
}
