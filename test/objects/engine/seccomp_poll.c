/* A seccomp filter without restart_syscall(2) and a call with a time-out.
 * as: root
 */
#include "seccomp_poll.h"
