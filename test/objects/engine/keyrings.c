/* a key of the process, which is in no image
 * refused: process keyring
 */
#include "../object.h"
#include <linux/keyctl.h>
#include <sys/syscall.h>

int main(void)
{
	ht_init();
	CHECK(syscall(SYS_add_key, "user", "name", "text", 4, KEY_SPEC_PROCESS_KEYRING) > 0);
	while (point())
		;
	return done();
}
