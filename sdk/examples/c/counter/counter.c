/* counter counts the checkpoints of a computation, in its state, and logs the
 * number. */
#include "hiatus_plugin.h"

HIATUS_INIT
{
	static const char summary[] = "counts checkpoints, in C";
	hiatus_describe(summary, sizeof summary - 1);
	hiatus_subscribe(HIATUS_PRECHECKPOINT);
	hiatus_subscribe(HIATUS_RUNNING);
	return HIATUS_OK;
}

HIATUS_EVENT(kind)
{
	uint32_t count = 0;
	int32_t n = hiatus_state_read(&count, sizeof count);
	if (n != 0 && n != sizeof count)
		return hiatus_failed("the state is not a counter");
	if (kind == HIATUS_PRECHECKPOINT) {
		count++;
		if (hiatus_state_write(&count, sizeof count) < 0)
			return hiatus_failed("the state was not taken");
	}
	char text[] = "checkpoints: 0000";
	for (char *p = text + sizeof text - 2; count > 0 && *p != ' '; count /= 10)
		*p-- = '0' + count % 10;
	hiatus_logs(HIATUS_INFO, text);
	return HIATUS_OK;
}
