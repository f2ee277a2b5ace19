package coord

import (
	"time"

	"github.com/hiatus-project/hiatus/core/image"
	"github.com/hiatus-project/hiatus/plugin"
)

// CheckpointRequest asks for a checkpoint.
type CheckpointRequest struct {
	Kill bool `json:"kill,omitempty"` // end the processes once the generation is committed
	// OpenFiles asks for the content of open files in the image.
	OpenFiles bool `json:"open_files,omitempty"`
	// NoSnapshot has the memory written while the program stands still.
	NoSnapshot bool `json:"no_snapshot,omitempty"`
	// SelfContained asks for programs and libraries in the image.
	SelfContained bool          `json:"self_contained,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"` // until it is given up; 0: the coordinator's own, Config.Timeout
}

// CheckpointResult describes a committed generation. Numbers are sums over
// the agents, Pause and Timings those of the slowest.
type CheckpointResult struct {
	Name       string        `json:"name"` // of the computation
	Generation uint64        `json:"generation"`
	Path       string        `json:"path"`      // folder of the generation
	Bytes      int64         `json:"bytes"`     // written
	RawBytes   int64         `json:"raw_bytes"` // before compression
	Pause      time.Duration `json:"pause"`     // for which the program stood still
	// InPause says why memory was written in the pause that is else written from
	// a snapshot.
	InPause   string        `json:"in_pause,omitempty"`
	Total     time.Duration `json:"total"` // from the request to the commit
	Processes int           `json:"processes"`
	Threads   int           `json:"threads"`
	Timings   []Timing      `json:"timings,omitempty"`
}

// Timing is the time that a plugin, or the engine itself, took for a phase.
type Timing struct {
	Plugin string        `json:"plugin"`
	Phase  string        `json:"phase"`
	Took   time.Duration `json:"took"`
}

// Progress tells how far the writing of a generation is, in bytes, over all
// agents that have said so. Total may grow while agents begin.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Hello is how an agent presents itself.
type Hello struct {
	// ID is unique in the computation and names the agent's folder. "" asks
	// for the lowest number that is free.
	ID string `json:"id"`
	// Computation is the id that it must have; "" is any.
	Computation string `json:"computation,omitempty"`
	// Restart is the generation that the agent brings back; 0: none.
	Restart  uint64       `json:"restart,omitempty"`
	Host     string       `json:"host"`
	PID      int          `json:"pid"` // of the supervisor
	Plugins  []PluginInfo `json:"plugins"`
	Features []string     `json:"features,omitempty"`
}

// Welcome is what an agent learns of the computation that it joins.
type Welcome struct {
	ID          string        `json:"id"` // of the agent
	Name        string        `json:"name"`
	Computation string        `json:"computation"`
	Dir         string        `json:"dir"` // of the generations
	Keep        int           `json:"keep"`
	Interval    time.Duration `json:"interval"` // between periodic checkpoints; 0: none
}

// PluginInfo is what agents must agree on for a common checkpoint.
type PluginInfo struct {
	Name     string   `json:"name"`
	State    uint16   `json:"state"` // the state format that it writes
	Barriers []string `json:"barriers,omitempty"`
}

// Order tells an agent to take its part in a checkpoint.
type Order struct {
	Generation    uint64
	Dir           string    // the agent's folder for this generation; it exists
	Kill          bool      // end the processes in Finish, if committed
	OpenFiles     bool      // save the content of open files
	NoSnapshot    bool      // write the memory while the program stands still
	SelfContained bool      // carry programs and libraries
	Agents        int       // that have this order
	Deadline      time.Time // when the coordinator gives up, on this host's clock
}

// AgentResult is what an agent has written.
type AgentResult struct {
	Files     []image.FileInfo      `json:"files"`
	Parent    *image.Parent         `json:"parent,omitempty"` // that the image builds on
	Bytes     int64                 `json:"bytes"`            // written
	RawBytes  int64                 `json:"raw_bytes"`        // before compression
	Pause     time.Duration         `json:"pause"`            // from suspended to resumed
	InPause   string                `json:"in_pause,omitempty"`
	Total     time.Duration         `json:"total"`
	Processes int                   `json:"processes"`
	Threads   int                   `json:"threads"`
	Timings   []Timing              `json:"timings,omitempty"`
	Plugins   []image.PluginVersion `json:"plugins,omitempty"`
}

// AgentStatus describes an agent and its processes now.
type AgentStatus struct {
	ID        string          `json:"id"`
	Host      string          `json:"host"`
	PID       int             `json:"pid"` // of the supervisor
	Processes []ProcessStatus `json:"processes"`
	Plugins   []string        `json:"plugins"`
	Log       string          `json:"log,omitempty"` // its log file
	// Arriving is memory that a lazy restart has still to bring; nil: none.
	Arriving *Arriving `json:"arriving,omitempty"`
	// Error says why the agent did not answer; the fields above are then
	// those of its hello.
	Error string `json:"error,omitempty"`
}

// Arriving tells how much of a tree's memory is there, in bytes as in the image.
type Arriving struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// ProcessStatus describes a process of an agent.
type ProcessStatus struct {
	PID     int    `json:"pid"`      // as the program sees it
	HostPID int    `json:"host_pid"` // as the supervisor's /proc shows it
	PPID    int    `json:"ppid"`     // as the program sees it
	Threads int    `json:"threads"`
	State   string `json:"state"`
	Command string `json:"command"`
}

// The states of a computation.
const (
	StateRunning       = "running"
	StateCheckpointing = "checkpointing"
	StateRestarting    = "restarting" // some of its programs do not run yet
	// StateUnreachable is ListRunning's word for a coordinator that lives
	// but did not answer in time; LastError says more.
	StateUnreachable = "unreachable"
)

// Status describes a computation. The fields named Last tell of the last
// checkpoint that was tried: LastError is empty where it was committed;
// LastPause, LastTotal, LastBytes and LastTimings are those of the last committed one.
type Status struct {
	Name        string        `json:"name"`
	Computation string        `json:"computation"` // id, kept across restarts
	Addr        string        `json:"addr"`        // of the coordinator
	Dir         string        `json:"dir"`         // of the generations
	Generation  uint64        `json:"generation"`  // last committed; 0: none
	Generations []uint64      `json:"generations"` // committed
	State       string        `json:"state"`
	Interval    time.Duration `json:"interval"` // between periodic checkpoints; 0: none
	LastPause   time.Duration `json:"last_pause"`
	LastTotal   time.Duration `json:"last_total"`
	LastBytes   int64         `json:"last_bytes"`
	LastTimings []Timing      `json:"last_timings,omitempty"` // by plugin and phase, of the slowest agent
	LastError   string        `json:"last_error,omitempty"`
	LastTime    time.Time     `json:"last_time,omitzero"` // of its end
	Started     time.Time     `json:"started"`
	Agents      []AgentStatus `json:"agents"`
}

// Refusal is an object that could not be checkpointed now.
type Refusal = plugin.RefusalError
