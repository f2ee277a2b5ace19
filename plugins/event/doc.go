// Package event keeps the kernel objects by which a program waits for others:
// eventfd(2), signalfd(2), epoll(7), inotify(7), pidfd_open(2) and
// io_setup(2).
//
// All but the registrations of an epoll and the watches of an inotify instance
// are made in the supervisor, before the processes have descriptors.
//
// A registration names a file by number and description, as the process that
// calls epoll_ctl(2) sees it; so the call is injected in a process that has
// both descriptors, once for each open file description. Which process that
// is, kcmp(2) with KCMP_EPOLL_TFD tells at claim time: the number alone does
// not, for it may have been closed, and used again, while a duplicate keeps
// the registration alive.
//
// A watch is of an inode, which /proc/PID/fdinfo shows by its number and
// device. Its path is found with an inotify instance of our own: a candidate
// is the file if a watch of it looks the same there. To read the events of a
// program would take them from it, so that it is never done.
package event
