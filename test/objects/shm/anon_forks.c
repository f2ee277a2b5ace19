/* Shared anonymous memory in a tree of processes: of the ancestors, of cousins, of an orphan. */
#include "ipc.h"
#include <sys/prctl.h>

static volatile int *shared(void)
{
	void *p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* serve answers on every memory it has, until told to end. */
static void serve(volatile int *a, volatile int *b, int slot)
{
	for (int n = 1;; n++) {
		while (a[0] >= 0 && a[0] < n)
			ht_nap(1);
		if (a[0] < 0)
			_exit(0);
		if (b)
			ipc_tell(&b[slot], n * 10 + slot);
		ipc_tell(&a[slot], n);
	}
}

int main(void)
{
	int n = 0;

	ht_init();
	CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	volatile int *all = shared(), *cousins = shared();
	for (int side = 0; side < 2; side++) {
		if (ipc_child() == 0) {
			volatile int *own = shared();
			for (int i = 0; i < 2; i++)
				if (ipc_child() == 0)
					serve(all, i ? own : cousins, 1 + 2 * side + i);
			CHECK_EQ(munmap((void *)cousins, 1 << 16), 0);
			/* what the second grandchild writes is seen here */
			for (int k = 1;; k++) {
				while (all[0] >= 0 && own[2 + 2 * side] != k * 10 + 2 + 2 * side)
					ht_nap(1);
				if (all[0] < 0)
					break;
				ipc_tell(&all[10 + side], k);
			}
			while (waitpid(-1, NULL, 0) > 0)
				;
			_exit(0);
		}
	}
	/* an orphan: its parent has ended */
	pid_t parent = ipc_child();
	if (parent == 0) {
		volatile int *lone = shared();
		if (ipc_child() == 0)
			serve(all, lone, 5);
		_exit(0);
	}
	ipc_reap(parent);
	CHECK_EQ(munmap((void *)cousins, 1 << 16), 0);
	while (point()) {
		ipc_tell(&all[0], ++n);
		for (int slot = 1; slot <= 5; slot++)
			ipc_await(&all[slot], n);
		ipc_await(&all[10], n);
		ipc_await(&all[11], n);
	}
	ipc_tell(&all[0], -1);
	while (waitpid(-1, NULL, 0) > 0)
		;
	CHECK_EQ(errno, ECHILD);
	return done();
}
