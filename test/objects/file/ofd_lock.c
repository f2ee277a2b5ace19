/* locks of open file descriptions: ranges, kinds */
#include "file.h"

static struct flock range(short type, off_t start, off_t len)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
}

int main(void)
{
	ht_init();
	int a = make("f", O_RDWR, ""), b = open(ht_path("f"), O_RDWR);
	struct flock w = range(F_WRLCK, 2, 3), r = range(F_RDLCK, 50, 0);
	CHECK(fcntl(a, F_OFD_SETLK, &w) == 0 && fcntl(b, F_OFD_SETLK, &r) == 0);
	while (point()) {
		struct flock l = range(F_WRLCK, 0, 10);
		CHECK(fcntl(b, F_OFD_GETLK, &l) == 0);
		CHECK(l.l_type == F_WRLCK && l.l_start == 2 && l.l_len == 3 && l.l_pid == -1);
		l = range(F_WRLCK, 40, 0);
		CHECK(fcntl(a, F_OFD_GETLK, &l) == 0);
		CHECK(l.l_type == F_RDLCK && l.l_start == 50 && l.l_len == 0);
		l = range(F_RDLCK, 40, 0);
		CHECK(fcntl(a, F_OFD_SETLK, &l) == 0);
		l.l_type = F_UNLCK;
		CHECK(fcntl(a, F_OFD_SETLK, &l) == 0);
	}
	return done();
}
