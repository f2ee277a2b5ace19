// Package timer keeps what counts time for a program: interval timers
// (setitimer(2)), POSIX timers (timer_create(2)) with their exact ids, and
// timerfd_create(2).
//
// A timer comes back with the time that remained when it was saved, less what
// CLOCK_MONOTONIC of the restarted tree has counted since; while the program
// did not run, its time stood still. A timerfd that waits for a time
// of day (CLOCK_REALTIME, TFD_TIMER_ABSTIME) is the exception: it keeps that
// time of day.
//
// Nothing is armed before the Running event, the last of a restart: only then
// do the threads exist that a timer may notify, and no time is lost while
// memory is filled.
package timer
