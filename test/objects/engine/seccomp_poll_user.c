/* A seccomp filter without restart_syscall(2): a refusal leaves the program alone.
 * as: user
 * refused: seccomp filter
 */
#include "seccomp_poll.h"
