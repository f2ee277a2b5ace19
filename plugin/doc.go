// Package plugin is the contract between the core and the packages that own
// one kind of kernel object each.
//
// It holds types and interfaces only, and imports the standard library and
// zerolog. A plugin is described by a [Definition], which is inert data, and
// made by its New function. It must implement [Plugin]; what else it can do
// is found by type assertion: [Stater], [FileClaimer], [FileFiller],
// [MapClaimer], [MapReopener], [MapAttacher], [Placer], [ProcessSaver],
// [ContentKeeper], [Publisher].
//
// # Order
//
// Plugins stand in one explicit list. [PreSuspend] and [PreCheckpoint], and
// within a checkpoint all claims and saves, run in the list's order; [Resume],
// [Restart], [Running], [Exit] and [Outcome] run in reverse.
//
// # A checkpoint, as a plugin sees it
//
//	Handle(PreSuspend)              threads run
//	Handle(PreCheckpoint)           threads are stopped
//	ClaimFile   for each open file description that no earlier plugin claimed
//	ClaimMap    for each mapping that no earlier plugin claimed
//	SaveProcess for each process
//	Save                            pure: no system calls
//	Contents                        what is too large for the state
//	Handle(Resume)                  the state is saved, or the checkpoint was given up
//	Handle(Outcome)                 it is committed or not; threads run
//
// # A restart
//
//	Load                            before the first side effect; validate everything
//	Handle(Restart)                 the process tree exists, without memory and descriptors
//	ReopenFile  for each description the plugin had claimed, in the order of its claims
//	FillFiles   all descriptions exist
//	ContentTarget for each of its Contents, which the engine fills
//	(the engine installs the descriptors and the memory in every process)
//	RestoreProcess for each process, whose descriptors and memory are there, with one thread
//	Handle(Running)                 all is made; threads are about to run
//	Publish                         others may see it
//	Published                       all agents have come as far; nothing is taken back any more
//
// # Errors
//
// An error before the image is committed gives the checkpoint up: plugins
// that had been asked get Resume in reverse, the program runs on, and the
// user reads the error. It must name the pid, the descriptor, the object and
// the reason: use [Refuse]. An error during a restart ends the half-built
// tree and leaves the image as it was. A panic is caught by the core and
// becomes an error of the plugin. Every call has a deadline.
package plugin
