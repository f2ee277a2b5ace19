/* io_getevents: events that were not read come in their order, across the ring's end */
#include "aio.h"

int main(void)
{
	enum { N = 60 };
	static struct iocb reads[N];
	char data[N + 1];

	ht_init();
	aio_context_t ctx = aio_setup(N);
	struct aio_ring *ring = (struct aio_ring *)ctx;
	int zero = open("/dev/zero", O_RDONLY);
	int room = aio_room(ctx);
	struct iocb one = aio_request(IOCB_CMD_PREAD, zero, data, 1, 1);
	while (ring->tail != ring->nr - N / 2) {
		aio_submit(ctx, &one);
		aio_expect(ctx, &one, 1);
	}
	for (int round = 1;; round++) {
		for (int i = 0; i < N; i++) {
			reads[i] = aio_request(IOCB_CMD_PREAD, zero, data, i + 1, round * 1000 + i);
			aio_submit(ctx, &reads[i]);
		}
		CHECK(ring->head == ring->nr - N / 2 || round > 1);
		unsigned head = ring->head, tail = ring->tail;
		if (!point())
			break;
		CHECK_EQ(ring->head, head);
		CHECK_EQ(ring->tail, tail);
		for (int i = 0; i < N; i++)
			aio_expect(ctx, &reads[i], i + 1);
		aio_empty(ctx);
		CHECK_EQ(aio_room(ctx), room);
	}
	return done();
}
