// Package proc is the process engine: it stops process trees, reads and
// rebuilds them, from outside and without privileges.
//
// # The mechanism
//
// A tree is frozen with PTRACE_SEIZE and PTRACE_INTERRUPT ([Freeze]). What
// /proc and ptrace do not tell is asked by system calls that the process
// itself runs: one page of machine code, the blob, is mapped into it, executes
// an array of records in one ptrace round trip, and is unmapped again
// (inject.go). On restart an empty process is made by exec in new namespaces,
// emptied of all its memory, and forked into the whole tree with clone3(2)
// and set_tid; each blank process then injects its own memory, descriptors,
// threads and signals (restore*.go).
//
// # One thread
//
// The kernel ties a tracee to the thread that attached it, so that every
// ptrace(2) call, every wait4(2) and the birth of every child of the agent
// happens on the one locked thread of a [Tracer]; functions that must run
// there take *Tracer as receiver or say so. Nothing else in the agent may
// wait for children: it would steal the tracer's stops.
//
// # A target is never harmed
//
// Between two injections a thread stands in a PTRACE_EVENT_STOP with its own
// registers and its own signal mask, so that it runs on unharmed if the
// tracer is killed. While an injection runs, its last instruction leads to an
// escape routine that puts registers and mask back without the tracer's help.
// The end of a batch is announced by tgkill(SIGTRAP) to the thread itself: a
// tracer sees it even where SIGTRAP is ignored, and unlike a breakpoint it
// does not reset the disposition of SIGTRAP.
package proc
