/*
 * Keys and names of IPC objects, which the tests remove when the program is
 * gone: objects outlive it.
 */
#ifndef IPC_H
#define IPC_H

#include "../object.h"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>

enum { IPC_NAMES = 8 };

union semun { int val; struct semid_ds *buf; unsigned short *array; };

static inline uint32_t ipc_hash(void)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (const char *c = ht_dir; *c; c++)
		h = (h ^ (unsigned char)*c) * 16777619u;
	return h;
}

/* ipc_key is the nth key of this run, 0 <= n < IPC_NAMES. */
static inline key_t ipc_key(int n)
{
	return 0x48000000 | (ipc_hash() & 0xfffff) << 4 | n;
}

/* ipc_name is its nth name of a POSIX object. */
static inline const char *ipc_name(int n)
{
	static char name[IPC_NAMES][32];

	snprintf(name[n], sizeof name[n], "/ht.%08x.%d", ipc_hash(), n);
	return name[n];
}

/* ipc_child forks. */
static inline pid_t ipc_child(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	return pid;
}

static inline void ipc_reap(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

/* ipc_await waits for the word of another process. */
static inline void ipc_await(volatile int *word, int value)
{
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value)
		ht_nap(1);
}

static inline void ipc_await_not(volatile int *word, int value)
{
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
		ht_nap(1);
}

static inline void ipc_tell(volatile int *word, int value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

#endif
