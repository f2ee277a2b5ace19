package faultpoint

// Step is the name of a step.
type Step string

// Steps of a checkpoint, in their order. Who comes to them is the agent, which
// has its coordinator inside, but for those of the command.
const (
	CommandConnected Step = "command connected" // hiatus checkpoint: before it asks
	CommandAnswered  Step = "command answered"  // hiatus checkpoint: before it tells
	Asked            Step = "asked"             // the coordinator has a request
	Begun            Step = "begun"             // the generation's temporary folder is there
	Ordered          Step = "ordered"           // the agent has its order
	ThreadSeized     Step = "thread seized"     // of each thread, before it is asked to stop
	ThreadStopped    Step = "thread stopped"    // of each thread
	ProcessFrozen    Step = "process frozen"    // of each process
	Frozen           Step = "frozen"            // the whole tree stands still
	Suspended        Step = "suspended"         // behind the barrier
	Opened           Step = "opened"            // every process has the blob
	Saved            Step = "saved"             // all state is read
	ImageCreated     Step = "image created"     // with its files
	SectionsWritten  Step = "sections written"  // of engine and plugins
	StripeWriting    Step = "stripe writing"    // before each write to a stripe
	MemoryWritten    Step = "memory written"    // of all processes
	Refilled         Step = "refilled"          // plugins have done Resume
	Closed           Step = "closed"            // of each process: the blob is gone
	Releasing        Step = "releasing"         // of each process: before its threads run
	Resumed          Step = "resumed"           // the program runs; behind the barrier
	StripeSyncing    Step = "stripe syncing"    // of each stripe, before fsync
	StripeSynced     Step = "stripe synced"     // of each stripe, behind fsync
	IndexWriting     Step = "index writing"     // of image.hia
	ImageSyncing     Step = "image syncing"     // before the fsync of image.hia
	ImageSynced      Step = "image synced"      // behind it
	FolderSynced     Step = "folder synced"     // the image's names are durable
	Written          Step = "written"           // behind the barrier
	ManifestWriting  Step = "manifest writing"  // its file is there, and empty
	ManifestSyncing  Step = "manifest syncing"  // before its fsync
	Renaming         Step = "renaming"          // all is durable but the name
	Renamed          Step = "renamed"           // the commit
	Committed        Step = "committed"         // the name is durable
	Finishing        Step = "finishing"         // the agent has heard the outcome
	Finished         Step = "finished"          // and has done what follows from it
	SettingAside     Step = "setting aside"     // before an old generation loses its name
	Pruning          Step = "pruning"           // before its files are removed
	Answering        Step = "answering"         // the result is to go to the command
)

// Steps of a checkpoint that copies the program, in their order. They come between
// Saved and Refilled, but for the last two, which come behind MemoryWritten.
const (
	CopyStarting Step = "copy starting" // of each process that is copied
	CopyMiddle   Step = "copy middle"   // of each: the middle process is there, which is to fork
	CopyTrusted  Step = "copy trusted"  // of each: it is on its way
	CopyForked   Step = "copy forked"   // of each: the copy is there, and stands still
	CopyBack     Step = "copy back"     // of each: the middle process is gone, the thread is as it was
	CopyMade     Step = "copy made"     // of each: the copy has nothing in common with the program
	SnapshotMade Step = "snapshot made" // all copies are there
	SnapshotHeld Step = "snapshot held" // and what they lack is in a buffer
	CopiesEnding Step = "copies ending" // before they are killed
	CopiesEnded  Step = "copies ended"  // they are gone
)

// Steps of an incremental checkpoint, behind Saved.
const (
	Marking Step = "marking" // of each process: what has changed is known, and tracked on
	Marked  Step = "marked"  // changes of all are tracked anew
)

// Steps of each injection into a process, at a checkpoint and at a restart.
const (
	CallPrepared    Step = "call prepared"    // single call: its code is in the nest
	CallRegisters   Step = "call registers"   // single call: registers are set, the mask is not
	CallMasked      Step = "call masked"      // single call: before its entry
	CallEntered     Step = "call entered"     // single call: in its entry stop
	CallLeft        Step = "call left"        // single call: in its exit stop
	CallInterrupted Step = "call interrupted" // single call: before the thread's own registers
	CallOwn         Step = "call own"         // single call: the thread is as it was
	BatchPrepared   Step = "batch prepared"   // records and escape are written
	BatchRegisters  Step = "batch registers"  // registers are set, the mask is not
	BatchMasked     Step = "batch masked"     // before the thread runs
	BatchRunning    Step = "batch running"    // the thread runs
	BatchAnnounced  Step = "batch announced"  // the end is announced
	BatchEnded      Step = "batch ended"      // before the thread's own mask and registers
	MaskOwn         Step = "mask own"         // the thread has its mask, not its registers
)

// Steps of a restart, in their order.
const (
	RestartRead       Step = "restart read"       // the metadata is verified, all state is loaded
	RestartJoined     Step = "restart joined"     // the coordinator has the name
	RestartStub       Step = "restart stub"       // the first process, in its namespaces, has run nothing
	RestartEmptied    Step = "restart emptied"    // it has no memory but ours
	RestartReaper     Step = "restart reaper"     // the reaper is made
	RestartForked     Step = "restart forked"     // of each step of the tree's plan
	RestartTree       Step = "restart tree"       // all processes are there
	RestartPrivate    Step = "restart private"    // the image is verified whole, private memory has its content
	RestartObjects    Step = "restart objects"    // plugins have made what they keep
	RestartReopened   Step = "restart reopened"   // all descriptions are open in the agent
	RestartFilled     Step = "restart filled"     // and have their content
	RestartMapped     Step = "restart mapped"     // of each process: its mappings and their content
	RestartMemory     Step = "restart memory"     // of all
	RestartInstalled  Step = "restart installed"  // all processes have their descriptors
	RestartProcesses  Step = "restart processes"  // plugins have restored what is of a process
	RestartThreads    Step = "restart threads"    // all threads are there
	RestartPublished  Step = "restart published"  // files have their names, and shared memory its content
	RestartRunning    Step = "restart running"    // plugins have heard Running
	RestartFinished   Step = "restart finished"   // nothing is left but to let go
	RestartRestored   Step = "restart restored"   // behind the barrier
	RestartReleasing  Step = "restart releasing"  // of each process: before its threads run
	RestartLastHold   Step = "restart last hold"  // all run, but would end with the agent
	RestartReleased   Step = "restart released"   // the tree is on its own
	RestartSupervised Step = "restart supervised" // the coordinator takes orders
)

// Plugin is the step before a phase of a plugin: an event, or one of its other
// calls.
func Plugin(name, phase string) Step { return Step("plugin " + name + " " + phase) }

// OfCheckpoint returns the steps that every checkpoint of the agent comes to.
func OfCheckpoint() []Step {
	return []Step{Asked, Begun, Ordered, ThreadSeized, ThreadStopped, ProcessFrozen, Frozen, Suspended, Opened, Saved,
		ImageCreated, SectionsWritten, StripeWriting, MemoryWritten, Refilled, Closed, Releasing, Resumed, StripeSyncing, StripeSynced,
		IndexWriting, ImageSyncing, ImageSynced, FolderSynced, Written, ManifestWriting, ManifestSyncing, Renaming, Renamed, Committed,
		Finishing, Finished, SettingAside, Pruning, Answering}
}

// OfSnapshot returns the steps that a checkpoint comes to besides when it copies
// the program.
func OfSnapshot() []Step {
	return []Step{CopyStarting, CopyMiddle, CopyTrusted, CopyForked, CopyBack, CopyMade, SnapshotMade, SnapshotHeld, CopiesEnding, CopiesEnded}
}

// OfIncremental returns the steps that an incremental checkpoint comes to
// besides.
func OfIncremental() []Step { return []Step{Marking, Marked} }

// OfInjection returns the steps of an injection.
func OfInjection() []Step {
	return []Step{CallPrepared, CallRegisters, CallMasked, CallEntered, CallLeft, CallInterrupted, CallOwn,
		BatchPrepared, BatchRegisters, BatchMasked, BatchRunning, BatchAnnounced, BatchEnded, MaskOwn}
}

// OfRestart returns the steps that every restart comes to.
func OfRestart() []Step {
	return []Step{RestartRead, RestartJoined, RestartStub, RestartEmptied, RestartReaper, RestartForked, RestartTree, RestartPrivate, RestartObjects,
		RestartReopened, RestartFilled, RestartMapped, RestartMemory, RestartInstalled, RestartProcesses, RestartThreads, RestartPublished,
		RestartRunning, RestartFinished, RestartRestored, RestartReleasing, RestartLastHold, RestartReleased, RestartSupervised}
}
