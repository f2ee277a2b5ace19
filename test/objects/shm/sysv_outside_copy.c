/* a segment that a process outside of the tree has attached: a copy, where the user allows it
 * beside: itself
 * launch: --allow-outside-shm
 */
#include "sysv_outside.h"

int main(int argc, char **argv) { return sysv_outside(argc, argv); }
