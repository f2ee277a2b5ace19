/* memory policies of private and shared memory, mbind(2) */
#include "../object.h"
#include <linux/mempolicy.h>
#include <sys/mman.h>

static const int modes[] = { MPOL_BIND, MPOL_INTERLEAVE, MPOL_PREFERRED, MPOL_LOCAL, MPOL_DEFAULT };

#define N ((int)(sizeof modes / sizeof *modes))
#define SIZE (4 * 4096)

/* Before Linux 5.14 a local policy is told as a preferred one without nodes. */
static int local = MPOL_LOCAL;

static int without(int mode) { return mode == MPOL_DEFAULT || mode == MPOL_LOCAL; }

static void bind(char *at, int mode)
{
	unsigned long node = 1;

	CHECK(syscall(SYS_mbind, at, SIZE, mode, without(mode) ? NULL : &node, without(mode) ? 0 : 64, 0) == 0);
}

static void check(char *at, int want)
{
	unsigned long nodes[16] = { 0 };
	int mode;

	CHECK(syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8 + 1, at, MPOL_F_ADDR) == 0);
	CHECK_EQ(mode, want == MPOL_LOCAL ? local : want);
	CHECK_EQ(nodes[0], !without(want));
}

int main(void)
{
	char *mem[2];

	ht_init();
	for (int k = 0; k < 2; k++) {
		mem[k] = mmap(NULL, N * SIZE, PROT_READ | PROT_WRITE, (k ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
		CHECK(mem[k] != MAP_FAILED);
		for (int i = 0; i < N; i++) {
			bind(mem[k] + i * SIZE, modes[i]);
			mem[k][i * SIZE] = i;
		}
	}
	CHECK(syscall(SYS_get_mempolicy, &local, NULL, 0, mem[0] + 3 * SIZE, MPOL_F_ADDR) == 0);
	CHECK(local == MPOL_LOCAL || local == MPOL_PREFERRED);
	while (point())
		for (int k = 0; k < 2; k++)
			for (int i = 0; i < N; i++) {
				check(mem[k] + i * SIZE, modes[i]);
				CHECK_EQ(mem[k][i * SIZE], i);
			}
	return done();
}
