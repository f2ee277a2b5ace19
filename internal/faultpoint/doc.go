// Package faultpoint names the steps of a checkpoint and of a restart at which
// something may go wrong, so that tests can make it go wrong exactly there.
//
// In a build with the tag "faults" every step looks into the file that the
// variable HIATUS_FAULTS names. Each of its lines is
//
//	STEP[#N]: ACTION [ARGUMENT]
//
// and says what is done when STEP is reached, or when it is reached for the
// Nth time since the file was written:
//
//	kill        the process ends itself with SIGKILL
//	stop        the process stops itself with SIGSTOP
//	wait FIFO   the step waits until somebody has opened FIFO for writing,
//	            and has closed it again: fifo(7)
//	error NAME  the step fails with an errno, as ENOSPC
//
// The line "trace: FILE" has the names of all steps appended to FILE as they
// are reached. In every other build [At] is empty, and nothing of this exists.
package faultpoint
