/* another session keyring than hiatus has
 * refused: joined another session keyring
 */
#include "../object.h"
#include <linux/keyctl.h>
#include <sys/syscall.h>

int main(void)
{
	ht_init();
	CHECK(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "ht", 0, 0, 0) > 0);
	while (point())
		;
	return done();
}
