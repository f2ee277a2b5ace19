// A program with as many threads as its argument says, all of which wait.
#include "t.h"

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

int main(int argc, char **argv)
{
	pthread_attr_t small;
	pthread_t t;
	CHECK(argc == 2 && pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 65536) == 0);
	for (int i = 1; i < atoi(argv[1]); i++)
		CHECK(pthread_create(&t, &small, idle, 0) == 0);
	ready();
	for (char line[256];;)
		command(line);
}
