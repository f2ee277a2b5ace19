/* a queue that only processes outside of the tree use, which send and take messages all the time: it is theirs
 * beside: itself
 */
#include "ipc.h"
#include <pthread.h>

struct text { long type; char data[64]; };

static void *take(void *queue)
{
	struct text m;

	for (;;)
		msgrcv(*(int *)queue, &m, sizeof m.data, 0, 0);
	return NULL;
}

int main(int argc, char **argv)
{
	int outside = beside(argc, argv);

	ht_init();
	if (outside) {
		struct text m = { 1, "theirs" };
		pthread_t thread;
		int id = msgget(ipc_key(0), IPC_CREAT | 0600);

		CHECK(id >= 0);
		CHECK_EQ(pthread_create(&thread, NULL, take, &id), 0);
		for (;;)
			msgsnd(id, &m, sizeof m.data, 0);
	}
	while (point())
		;
	return done();
}
