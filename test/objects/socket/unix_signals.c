/* F_SETOWN, F_SETSIG and O_ASYNC of UNIX sockets: to a process, a group, a thread */
#include "../file/file.h"
#include <sys/socket.h>

static int pair(int *ends) { return socketpair(AF_UNIX, SOCK_STREAM, 0, ends); }

#define pipe pair
#include "../file/owner.c"
