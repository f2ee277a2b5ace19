// Package procfs reads what /proc tells of a process.
//
// Each file has a pure parser, Parse*, which takes bytes and makes no system
// call, and a reader, Read*, which reads the file of a process and parses it.
// Parsers reject a malformed value of a line that they know and pass over
// lines that they do not know, since kernels add lines.
//
// # Identifiers
//
// pid and tid are those of the pid namespace of the /proc mount, and so are
// the ids in what is read, but for the NS* lists of [Status]. A tid may stand
// for a pid everywhere: /proc/TID is there, though no listing of /proc shows
// it. That is how a process is read whose thread-group leader has exited: the
// leader is a zombie, and its maps, fd and exe are empty or forbidden.
//
// # Errors
//
// Errors name the path. A process or thread may end between any two reads:
// [IsGone] tells such an error from others. Some values need the permission
// of a ptrace(2) attachment, PTRACE_MODE_READ_FSCREDS: without it the kernel
// gives EACCES, or zeros for the addresses of [Stat].
//
// # Rules
//
// The formats are those of proc(5), proc_pid_status(5), proc_pid_stat(5),
// proc_pid_maps(5), proc_pid_smaps(5) and their sisters, and of fs/proc in the
// kernel where the manual is silent.
package procfs
