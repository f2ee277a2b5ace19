// Package sdk is what an extension of Hiatus in Go is written with.
//
// An extension implements [Plugin], registers it in an init function, and is
// built as a WASI reactor:
//
//	func init() { sdk.Register(plugin{}) }
//	func main() {}
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o x.wasm
//
// What it calls of this package is what it asks the user for: a function of
// a capability (see sdk/abi/ABI.md) that the linker keeps becomes an import
// that must be granted. Built for the host, the same code runs in a unit test
// against sdk/sdktest.
package sdk

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hiatus-project/hiatus/sdk/abi"
)

// The kinds of events; package abi describes them.
const (
	PreSuspend    = abi.PreSuspend
	PreCheckpoint = abi.PreCheckpoint
	Resume        = abi.Resume
	Restart       = abi.Restart
	Running       = abi.Running
	Launch        = abi.Launch
	Exit          = abi.Exit
	Outcome       = abi.Outcome
)

// Kind tells what is happening.
type Kind = abi.Kind

// Definition describes an extension. It is the same in every instance.
type Definition struct {
	Summary  string   // one line
	Kinds    []Kind   // the events that Handle wants
	Barriers []string // names used with Barrier
}

// Plugin is an extension.
type Plugin interface {
	Definition() Definition
	// Handle is called for each event of Definition.Kinds. An error gives the
	// checkpoint or the restart up, and is shown to the user.
	Handle(ev Event) error
}

// ErrSkip is what a Skipper returns.
var ErrSkip = errors.New("nothing to do here")

// Skipper is a Plugin that may have nothing to do on this host: Init returns
// ErrSkip then.
type Skipper interface{ Init() error }

// Event is what Handle receives.
type Event struct{ Kind Kind }

// Details are the particulars of an event.
type Details = abi.Event

// Process is one process of the tree.
type Process = abi.Process

// Details asks for the event's generation, processes and figures.
func (Event) Details() (Details, error) {
	var d Details
	data, err := grow(rawEvent)
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	return d, err
}

// Config decodes the extension's configuration into dst, which must have all
// its keys.
func Config(dst any) error {
	data, err := grow(rawConfig)
	if err != nil {
		return err
	}
	if err := decodeStrictly(data, dst); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// State returns what SetState has set in this sequence, else what was
// committed last, else nothing.
func State() ([]byte, error) { return grow(rawStateRead) }

// SetState sets the extension's state in the image. It counts when the
// checkpoint is committed.
func SetState(state []byte) error { return check(rawStateWrite(state)) }

// Features lists the functions of the host, as capability.name.
func Features() (string, error) {
	data, err := grow(rawFeatures)
	return string(data), err
}

// Logf writes to the log, at one of the levels of package abi.
func Logf(level int, format string, args ...any) {
	rawLog(int32(level), []byte(fmt.Sprintf(format, args...)))
}

// Infof writes to the log.
func Infof(format string, args ...any) { Logf(abi.LevelInfo, format, args...) }

// Warnf writes to the log.
func Warnf(format string, args ...any) { Logf(abi.LevelWarn, format, args...) }

// The errors of host functions. They wrap what the host says.
var (
	ErrNotFound   = errors.New("not found")
	ErrInvalid    = errors.New("invalid")
	ErrNotAllowed = errors.New("not allowed")
	ErrFailed     = errors.New("failed")
	ErrLimit      = errors.New("limit reached")
)

// check makes an error of what a host function returned.
func check(code int32) error {
	if code >= 0 {
		return nil
	}
	kind := ErrFailed
	switch code {
	case abi.ErrNotFound:
		kind = ErrNotFound
	case abi.ErrInvalid:
		kind = ErrInvalid
	case abi.ErrNotAllowed:
		kind = ErrNotAllowed
	case abi.ErrLimit:
		kind = ErrLimit
	}
	buf := make([]byte, 1024)
	if n := rawLastError(buf); n > 0 && int(n) <= len(buf) {
		return fmt.Errorf("%w: %s", kind, buf[:n])
	}
	return kind
}

// grow calls get with a larger buffer until the answer fits.
func grow(get func([]byte) int32) ([]byte, error) {
	buf := make([]byte, 4096)
	for {
		n := get(buf)
		if err := check(n); err != nil {
			return nil, err
		}
		if int(n) <= len(buf) {
			return buf[:n], nil
		}
		buf = make([]byte, n)
	}
}

// init and event are the two exports.

// start runs the plugin's init.
func start(p Plugin) int32 {
	if p == nil {
		return fail(errors.New("no plugin was registered: call sdk.Register in an init function"))
	}
	d := p.Definition()
	if d.Summary != "" {
		if err := check(rawDescribe([]byte(d.Summary))); err != nil {
			return fail(err)
		}
	}
	for _, k := range d.Kinds {
		if err := check(rawSubscribe(uint32(k))); err != nil {
			return fail(err)
		}
	}
	if declareBarriers != nil {
		if err := declareBarriers(d.Barriers); err != nil {
			return fail(err)
		}
	}
	if s, ok := p.(Skipper); ok {
		if err := s.Init(); errors.Is(err, ErrSkip) {
			return abi.Skip
		} else if err != nil {
			return fail(err)
		}
	}
	return abi.OK
}

// handle runs the plugin's Handle.
func handle(p Plugin, kind uint32) int32 {
	err := p.Handle(Event{Kind: Kind(kind)})
	switch {
	case errors.Is(err, ErrSkip):
		return abi.Skip
	case err != nil:
		return fail(err)
	}
	return abi.OK
}

func fail(err error) int32 {
	rawFail([]byte(err.Error()))
	return abi.Failed
}

// declareBarriers is set by UseBarriers: an extension that does not meet
// others must not ask for the capability.
var declareBarriers func(names []string) error

// UseBarriers makes Definition.Barriers known to the host. An extension that
// calls Barrier calls it in its init function, before Register.
func UseBarriers() {
	declareBarriers = func(names []string) error {
		for _, name := range names {
			if err := check(rawDeclare([]byte(name))); err != nil {
				return err
			}
		}
		return nil
	}
}
