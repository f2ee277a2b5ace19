/*
 * A segment that a process outside of the tree has attached too. What that
 * process does once the tree has been restarted is its own affair: the tree
 * has a copy.
 */
#ifndef SYSV_OUTSIDE_H
#define SYSV_OUTSIDE_H

#include "ipc.h"

enum { OUTSIDE_SIZE = 200000 };

struct outside {
	volatile int there; /* set by the process outside */
	char text[OUTSIDE_SIZE - sizeof(int)];
};

static inline int sysv_outside(int argc, char **argv)
{
	int outside = beside(argc, argv);
	struct shmid_ds ds;

	ht_init();
	int id = shmget(ipc_key(0), OUTSIDE_SIZE, IPC_CREAT | 0600);
	CHECK(id >= 0);
	struct outside *s = shmat(id, NULL, 0);
	CHECK(s != (void *)-1);
	if (outside) {
		ipc_tell(&s->there, getpid());
		for (;;)
			pause();
	}
	ipc_await_not(&s->there, 0);
	pid_t other = s->there;
	uint64_t seed = 0x5a17;
	for (size_t i = 0; i < sizeof s->text; i++)
		s->text[i] = ht_random(&seed);
	while (point()) {
		seed = 0x5a17;
		for (size_t i = 0; i < sizeof s->text; i++)
			CHECK_EQ(s->text[i], (char)ht_random(&seed));
		CHECK_EQ(s->there, other);
		CHECK_EQ(shmget(ipc_key(0), 0, 0), id);
		CHECK_EQ(shmctl(id, IPC_STAT, &ds), 0);
		CHECK_EQ(ds.shm_segsz, OUTSIDE_SIZE);
		CHECK(ds.shm_nattch == 1 || ds.shm_nattch == 2); /* a copy, or the same */
	}
	return done();
}

#endif
