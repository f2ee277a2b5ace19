/* an entry of the local descriptor table
 * refused: local descriptor table
 */
#include "../object.h"
#include <asm/ldt.h>
#include <sys/syscall.h>

int main(void)
{
	struct user_desc d = { .entry_number = 3, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1 };

	ht_init();
	CHECK_EQ(syscall(SYS_modify_ldt, 0x11, &d, sizeof d), 0);
	while (point())
		;
	return done();
}
