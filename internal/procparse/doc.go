// Package procparse parses the files of /proc that both the core and plugins
// read: the descriptions of open files and the list of POSIX timers.
//
// Its functions are pure: they take the bytes of a file, make no system call
// and never panic. A line that they know must be well-formed; a line that they
// do not know is kept or passed over, since kernels add lines.
package procparse
