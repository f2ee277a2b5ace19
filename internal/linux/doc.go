// Package linux holds the kernel's constants, structures and calls that
// golang.org/x/sys/unix lacks. Names in capitals are the kernel's own.
package linux
