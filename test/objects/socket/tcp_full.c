/* a TCP connection whose buffers are full both ways */
#include "tcp.h"

int main(void)
{
	ht_init();
	struct conn c = connection_at(v4(7002));
	struct stream s[2] = { 0 };

	for (int i = 0; i < 2; i++)
		stream_fill(&s[i], c.fd[i]);
	while (point())
		for (int i = 0; i < 2; i++) {
			CHECK(s[i].sent - s[i].read > 500000);
			stream_read(&s[i], c.fd[1 - i], 100000);
			stream_send(&s[i], c.fd[i], 100000);
		}
	for (int i = 0; i < 2; i++)
		stream_drain(&s[i], c.fd[1 - i]);
	talk(&c);
	return done();
}
