// A thread that spins inside a restartable sequence, again and again, and counts how each
// ended. Both ways are right; a sequence that runs on after an abort, or an abort outside
// of one, is not.
#include "t.h"
#include <sys/rseq.h>

struct rseq_cs section __attribute__((aligned(32)));
extern char abort_handler[];
static volatile long commits, aborts;

static void *spin(void *arg)
{
	struct rseq *r = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	for (;;) {
		long end = 0, inside = 0;
		__asm__ volatile(
			"leaq section(%%rip), %%rax\n leaq 1f(%%rip), %%rcx\n movq %%rcx, 8(%%rax)\n"
			"leaq 2f(%%rip), %%rdx\n subq %%rcx, %%rdx\n movq %%rdx, 16(%%rax)\n"
			"leaq abort_handler(%%rip), %%rdx\n movq %%rdx, 24(%%rax)\n"
			"movq %%rax, 8(%[r])\n"
			"1: movq $20000000, %%rcx\n incq %[inside]\n 5: decq %%rcx\n jnz 5b\n decq %[inside]\n"
			"2: movq $1, %[end]\n jmp 3f\n"
			".long 0x53053053\n .globl abort_handler\n abort_handler: movq $2, %[end]\n 3:\n"
			: [end] "+m"(end), [inside] "+m"(inside)
			: [r] "r"(r)
			: "rax", "rcx", "rdx", "memory", "cc");
		if (end == 1) {
			CHECK(inside == 0);
			commits++;
		} else {
			CHECK(end == 2);
			aborts++;
		}
	}
	return arg;
}

int main(void)
{
	pthread_t t;
	if (__rseq_size == 0) {
		dprintf(1, "no rseq\n");
		return 0;
	}
	CHECK(pthread_create(&t, 0, spin, 0) == 0);
	ready();
	for (char line[256];;) {
		command(line);
		long n = commits + aborts;
		while (commits + aborts < n + 2)
			usleep(100);
		dprintf(1, "right %p %ld\n", (void *)abort_handler, aborts);
	}
}
