// Package coord is the coordinator of a computation: it keeps the members,
// the generations, the barriers and what agents publish, and it is the only
// one that commits a generation.
//
// There are three parties. The [Server] is embedded in the first agent, or in
// what restarts several, on a UNIX stream socket. Each agent [Join]s it over one connection, whatever its
// number of processes, and gives it a [Handler]; so the coordinator sees
// hosts, not processes. A command, as `hiatus checkpoint`, [Dial]s it.
//
// # A checkpoint
//
//	command        coordinator                agents
//	checkpoint --> Next, compare plugins,
//	               Begin
//	               checkpoint(Order)      --> Handler.Checkpoint
//	               barrier, publish,      <-- Member.Barrier, Publish,
//	               lookup                     Lookup
//	 <-- progress  progress               <-- Member.Progress
//	               (all have answered)    <-- AgentResult
//	               Commit
//	               finish(committed)      --> Handler.Finish
//	 <-- result    Prune
//
// Any failure before Commit gives the whole checkpoint up: an agent's error,
// a lost connection, the deadline, agents that wait at different barriers.
// Then every wait at a barrier returns [ErrGivenUp] with the reason, the
// contexts of the handlers are cancelled, the agents hear finish(given up),
// the pending generation is removed, and the command reads the reason. A
// command that goes away stops nothing. A lost connection outside a
// checkpoint only removes the member.
//
// A check is a session too, of generation 0, in which the agents stop before
// anything is written. Checkpoints and checks wait for each other.
//
// Before the first checkpoint the same barriers, publish and lookup serve a
// restart: its session opens with the first use, for Config.Agents agents, which
// say in hello what generation they bring back. An agent that cannot says "failed",
// which gives the restart up; one whose tree runs says "restored", and
// checkpoints begin when all have.
//
// An agent is admitted if its plugins are those of the others. When a coordinator
// is lost, its agents look for the next, and any of them may become it: who gets
// the lock of the name.
//
// # Barriers, publish, lookup
//
// A barrier is released when every agent of the session has come to its name,
// and its name can be used again from then on. An agent waits at one barrier
// at a time. What an agent publishes is staged, and seen by Lookup when the
// next barrier, of any name, is released; the last value of a key wins.
// Everything published is forgotten at the session's end.
//
// # Wire protocol, version 1
//
// A frame is a length of 4 bytes, big-endian, and as many bytes of JSON: at
// least 1, at most 16 MiB. The JSON is one object:
//
//	{"id": 7, "method": "barrier", "body": {...}}   request
//	{"id": 7, "body": {...}}                        its reply
//	{"id": 7, "error": {"text": "...", ...}}        its reply, failed
//	{"method": "progress", "body": {...}}           notification, no reply
//
// Both ends send requests; each numbers its own from 1 upwards. Replies come
// in any order. The notification "cancel" {"id", "error"} cancels a request
// that its sender no longer waits for; the reply still comes.
//
// The first request on a connection is "hello" {"protocol", "role", "agent"},
// where role is "agent" or "command". An agent may then send barrier,
// publish, lookup, restored, failed and the notifications progress and ended, and receives
// checkpoint, finish, status, check, kill and the notification interval. A
// command may send checkpoint, status,
// check, kill and interval, and receives the notification progress.
//
// An error keeps its text. Its list "is" names the errors of this package
// that it matches, and "refusal" holds the first [plugin.RefusalError] in it,
// so that errors.Is and errors.As give the same answers at the other end.
//
// A peer that sends anything else is dropped and logged: a frame of a wrong
// size, JSON that is no such object, a body of another type than its method's,
// a request before hello, an id in use, a reply to nothing, more than 128
// requests at once. A method that the other end does not know only fails. More
// than 512 connections are not served. Limits in time: 10 s for
// hello, 30 s for the rest of a frame that has begun, 10 s for a write, 1 h
// for a checkpoint whose request says nothing, 1 min for finish, 5 s for a
// status.
//
// # Who may connect
//
// The socket is <runtime directory>/<name>.sock, mode 0600, in a directory
// that only its owner may enter ([RuntimeDir]). Besides, the kernel's word on
// the peer (SO_PEERCRED, unix(7)) is asked at both ends: the same effective
// uid, or root.
//
// <name>.lock is held with flock(2) as long as the coordinator lives, so that
// a dead one's socket can be told from a slow one's. Where the file is gone, a
// connection says whether it lives. Names are claimed and
// stale ones removed under a flock on the directory itself. A socket that others
// remove is made again, that of a login session in the directory that stays, /tmp/hiatus-<euid>.
//
// # Lock order
//
// Server.running (one checkpoint at a time), then Server.mu, then session.mu;
// of the connection, conn.writing and conn.mu are leaves, as are relay.mu
// (taken under session.mu), Member.mu and Client.mu. Only Server.running is held across a wait; a frame is
// written under conn.writing, within the limit for a write.
package coord
