/* VM_DONTDUMP, DONTFORK, WIPEONFORK, huge page advice, read-ahead, merging: each shown by smaps and by what it does */
#include "../object.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include "smaps.h"

#define SIZE (2 << 20)

static const struct { int advice; const char *flag; } kinds[] = {
	{ MADV_DONTDUMP, "dd" }, { MADV_DONTFORK, "dc" }, { MADV_WIPEONFORK, "wf" }, { MADV_HUGEPAGE, "hg" },
	{ MADV_NOHUGEPAGE, "nh" }, { MADV_RANDOM, "rr" }, { MADV_SEQUENTIAL, "sr" }, { MADV_MERGEABLE, "mg" },
};

#define N (sizeof kinds / sizeof *kinds)

int main(void)
{
	char *mem[N];

	ht_init();
	for (size_t i = 0; i < N; i++) {
		mem[i] = map_private(2 * SIZE);
		CHECK(mprotect(mem[i] + SIZE, SIZE, PROT_NONE) == 0); /* lest it join the next */
		CHECK(madvise(mem[i], SIZE, kinds[i].advice) == 0);
		mem[i][4096] = i + 1;
	}
	while (point()) {
		for (size_t i = 0; i < N; i++) {
			for (size_t k = 0; k < N; k++)
				CHECK_EQ(smaps_flag(mem[i], kinds[k].flag), i == k);
			CHECK_EQ(mem[i][4096], i + 1);
		}
		pid_t child = fork();
		if (child == 0)
			_exit(mem[0][4096] != 1 || !faults(mem[1]) || mem[2][4096] != 0);
		int status;
		CHECK(waitpid(child, &status, 0) == child && status == 0);
	}
	return done();
}
