/*
 * The protocol of object fixtures: a program makes one kind of kernel object,
 * comes to a point at which it is checkpointed, and looks whether the object
 * is as before.
 *
 *	ht_init();
 *	make();
 *	while (point())
 *		check();
 *	return done();
 *
 * The tests checkpoint it at each point: once in place, and in two generations
 * of kill and restart. What check() does to the object must leave it worth
 * another look.
 *
 * With the key "network" all happens in a network namespace of its own, where lo
 * is up and ping sockets are allowed.
 */
#ifndef OBJECT_H
#define OBJECT_H

#include "../fixtures/ht.h"

/* beside says whether this is the process outside of the tree that a fixture
 * with the key "beside" has, which the tests start before the tree and end by
 * its pid. HT_DIR is its argument: by its environment a process counts as one
 * of the tree's. Call it before ht_init. */
static inline int beside(int argc, char **argv)
{
	if (argc < 2)
		return 0;
	CHECK_EQ(setenv("HT_DIR", argv[1], 1), 0);
	return 1;
}

/* done ends the program that called ht_init. */
static inline int done(void)
{
	ht_ok();
	return 0;
}

#endif
