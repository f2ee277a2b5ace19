/* Threads, each with state of its own, that all look at it when asked to. */
#ifndef TEAM_H
#define TEAM_H

#include <pthread.h>

#define TEAM_MOST 16

static struct {
	pthread_barrier_t barrier;
	pthread_t threads[TEAM_MOST];
	int size, over;
	void (*set)(int), (*check)(int);
} team;

static void *team_member(void *arg)
{
	int n = (int)(long)arg;

	team.set(n);
	pthread_barrier_wait(&team.barrier);
	while (pthread_barrier_wait(&team.barrier), !team.over) {
		team.check(n);
		pthread_barrier_wait(&team.barrier);
	}
	return NULL;
}

/* team_start makes threads 1 to size, and returns when each has called set. */
static inline void team_start(int size, void (*set)(int), void (*check)(int))
{
	team.size = size, team.set = set, team.check = check;
	CHECK(pthread_barrier_init(&team.barrier, NULL, size + 1) == 0);
	for (long i = 0; i < size; i++)
		CHECK(pthread_create(&team.threads[i], NULL, team_member, (void *)(i + 1)) == 0);
	pthread_barrier_wait(&team.barrier);
}

/* team_check returns when each thread has called check. */
static inline void team_check(void)
{
	pthread_barrier_wait(&team.barrier);
	pthread_barrier_wait(&team.barrier);
}

static inline void team_end(void)
{
	team.over = 1;
	pthread_barrier_wait(&team.barrier);
	for (int i = 0; i < team.size; i++)
		CHECK(pthread_join(team.threads[i], NULL) == 0);
}

#endif
