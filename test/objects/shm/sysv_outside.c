/* a segment that a process outside of the tree has attached: not kept unless asked for
 * beside: itself
 * refused: processes outside of the computation use it too
 */
#include "sysv_outside.h"

int main(int argc, char **argv) { return sysv_outside(argc, argv); }
