/* A notification by a thread: the kernel does not tell what it was registered with.
 * refused: SIGEV_THREAD
 */
#include "ipc.h"

static void nothing(union sigval v) { (void)v; }

int main(void)
{
	struct sigevent sev = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = nothing };

	ht_init();
	mqd_t q = mq_open(ipc_name(0), O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
	CHECK(q >= 0);
	CHECK_EQ(mq_notify(q, &sev), 0);
	while (point())
		CHECK(mq_notify(q, &sev) < 0 && errno == EBUSY);
	CHECK_EQ(mq_unlink(ipc_name(0)), 0);
	return done();
}
