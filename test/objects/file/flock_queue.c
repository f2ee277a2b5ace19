/* flock(2) of a POSIX message queue, which is another plugin's and has a path
 * refused: it has a FLOCK lock
 */
#include "../object.h"
#include <mqueue.h>
#include <sys/file.h>

int main(void)
{
	char name[32];

	ht_init();
	snprintf(name, sizeof name, "/flock-%d", getpid());
	mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL);
	CHECK(q >= 0 && mq_unlink(name) == 0 && flock(q, LOCK_EX) == 0);
	while (point())
		CHECK(flock(q, LOCK_EX) == 0);
	return done();
}
