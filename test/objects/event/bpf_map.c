/* bpf: a map
 * refused: bpf(2)
 * as: root
 */
#include "../object.h"
#include <linux/bpf.h>

int main(void)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1 };
	uint32_t key = 0;
	uint64_t value = 5;

	ht_init();
	int fd = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
	CHECK(fd >= 0);
	memset(&attr, 0, sizeof attr);
	attr.map_fd = fd;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	CHECK_EQ(syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof attr), 0);
	while (point()) {
		value = 0;
		CHECK_EQ(syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof attr), 0);
		CHECK_EQ(value, 5);
	}
	return done();
}
