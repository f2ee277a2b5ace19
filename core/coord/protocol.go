package coord

import (
	"syscall"
	"time"
)

const protocolVersion = 1

// The roles of a connection.
const (
	roleAgent   = "agent"
	roleCommand = "command"
)

// The methods, but for "cancel", which conn handles.
const (
	methodHello      = "hello"
	methodBarrier    = "barrier"
	methodPublish    = "publish"
	methodLookup     = "lookup"
	methodProgress   = "progress"
	methodCheckpoint = "checkpoint"
	methodFinish     = "finish"
	methodStatus     = "status"
	methodCheck      = "check"
	methodKill       = "kill"
	methodInterval   = "interval"
	methodRestored   = "restored"
	methodFailed     = "failed"
	methodEnded      = "ended"
)

type helloBody struct {
	Protocol int    `json:"protocol"`
	Role     string `json:"role"`
	Agent    *Hello `json:"agent,omitempty"` // of role agent
}

type welcomeBody struct {
	Protocol int `json:"protocol"`
	Welcome
}

type barrierBody struct {
	Generation uint64 `json:"generation"`
	Name       string `json:"name"`
}

// entryBody is of publish and lookup, and the reply to lookup. Generation is
// that of the sender's order; 0 in a restart or a check.
type entryBody struct {
	Generation uint64 `json:"generation,omitempty"`
	Key        string `json:"key"`
	Value      []byte `json:"value,omitempty"`
}

// orderBody is an Order on the wire. The deadline goes as what is left of it,
// since the clocks of hosts differ.
type orderBody struct {
	Generation    uint64        `json:"generation"`
	Dir           string        `json:"dir"`
	Kill          bool          `json:"kill,omitempty"`
	OpenFiles     bool          `json:"open_files,omitempty"`
	NoSnapshot    bool          `json:"no_snapshot,omitempty"`
	SelfContained bool          `json:"self_contained,omitempty"`
	Agents        int           `json:"agents,omitempty"`
	Left          time.Duration `json:"left"`
}

type finishBody struct {
	Generation uint64 `json:"generation"`
	Committed  bool   `json:"committed"`
	Reason     string `json:"reason,omitempty"`
}

type killBody struct {
	Signal syscall.Signal `json:"signal"`
}

type failedBody struct {
	Error *wireError `json:"error"`
}

type intervalBody struct {
	Interval time.Duration `json:"interval"`
}

// nothing is the body of a request without arguments.
type nothing struct{}
