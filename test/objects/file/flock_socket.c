/* flock(2) of a socket, which is another plugin's
 * refused: it has a FLOCK lock
 */
#include "../object.h"
#include <sys/file.h>
#include <sys/socket.h>

int main(void)
{
	ht_init();
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(s >= 0 && flock(s, LOCK_EX) == 0);
	while (point())
		CHECK(flock(s, LOCK_EX) == 0);
	return done();
}
