package plugin

import (
	"fmt"
	"time"
)

// Kind tells what is happening. The numbers stand in images and in the WASM
// ABI: they are append-only.
type Kind uint32

const (
	PreSuspend    Kind = iota + 1 // threads still run; programs may be asked
	PreCheckpoint                 // threads are stopped: drain, claim, save
	Resume                        // the state is saved, or the checkpoint was given up: refill
	Restart                       // processes exist, kernel objects do not: make them
	Running                       // after a restart: threads are about to run
	Launch                        // a tree begins
	Exit                          // a tree has ended, or a restart has failed
	Outcome                       // the checkpoint is committed, or given up for good; threads run
)

var kindNames = [...]string{"", "presuspend", "precheckpoint", "resume", "restart", "running", "launch", "exit", "outcome"}

// String returns the name used in logs and in configuration.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint32(k))
	}
	return kindNames[k]
}

// Reversed says whether plugins hear of k in the reverse of the list's order.
func (k Kind) Reversed() bool {
	return k == Resume || k == Restart || k == Running || k == Exit || k == Outcome
}

// Event is what a plugin's Handle receives.
type Event struct {
	Kind       Kind
	Generation uint64    // of the checkpoint, or of the image restarted; 0 at Launch
	Procs      []Process // all processes of this agent, parents first; empty at PreSuspend, Launch, Exit and Outcome
	Request    Request   // at PreSuspend and PreCheckpoint
	Outcome    *Figures  // at Outcome only
	Failed     bool      // at Exit: a restart was given up, the tree has never run
	Restarted  bool      // at Restart: not for the first time, so that the program has run on since the checkpoint
	Beside     bool      // at Restart: another restart of the image, or the computation that it was made of, lives
	Dir        string    // at Restart: the folder of the computation, in which its generations are made
	Here       bool      // at Restart: the image was made on this host, since its last boot
}

// Request is what the user asked of a checkpoint.
type Request struct {
	Kill      bool // the processes are ended when it is committed: they do not run on
	OpenFiles bool // the content of open files is to be saved with the image
}

// Figures tells how a checkpoint ended, for this agent.
type Figures struct {
	Committed bool
	Reason    string // why it was given up
	Dir       string // folder of the generation
	Bytes     int64  // written
	RawBytes  int64  // before compression
	Pause     time.Duration
	Total     time.Duration
	Processes int
	Threads   int
}
