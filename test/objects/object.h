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
 */
#ifndef OBJECT_H
#define OBJECT_H

#include "../fixtures/ht.h"

/* point stands still until the tests have done what they wanted. It returns 0
 * when no check is to follow. One thread of one process calls it. */
static inline int point(void)
{
	ht_step();
	for (;; ht_nap(2)) {
		char text[24] = "";

		/* A link, not a file: the fixture has none open that the tests change. */
		if (readlink(ht_path("go"), text, sizeof text - 1) < 0)
			CHECK(errno == ENOENT);
		if (atol(text) >= ht_steps)
			return 1;
		if (ht_stop())
			return 0;
	}
}

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
