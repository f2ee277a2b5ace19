package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/hiatus-project/hiatus/plugin"
	"github.com/hiatus-project/hiatus/sdk/abi"
)

// extension is the plugin that runs a guest.
//
// A sequence is one launch, one checkpoint up to its outcome, one check, one
// restart or one exit; it has an instance of its own.
type extension struct {
	mod  *Module
	host plugin.Host
	log  *zerolog.Logger

	in        *instance // nil before the first event of a sequence that the guest wants
	next      chan made // of the next sequence, made while the program runs; nil: none
	failed    bool      // in this sequence: the guest is not called any more
	announced bool      // the sequence began with PreSuspend: it is no check

	committed []byte // state
	saved     []byte // the state in the image of this sequence
	hasSaved  bool

	decided map[abi.FDRef]fileState // about open files, in PreCheckpoint
	taken   []fileState             // in TakeFile
	kept    int64                   // bytes of content in both
	loaded  []fileState             // of the image
	environ []envChanges
	paths   [][2]string   // old and new
	keep    time.Duration // that the guest wants the program to stay stopped

	undo []written // what the guest wrote into processes since PreCheckpoint
}

// made is what instantiate returns.
type made struct {
	in   *instance
	skip bool
	err  error
}

// written is memory of a process as it was before a guest wrote to it.
type written struct {
	pid  int
	addr int64
	old  []byte
}

// Handle implements plugin.Plugin.
func (e *extension) Handle(ctx context.Context, ev plugin.Event) error {
	if e.begins(ev.Kind) {
		e.reset()
		e.paths = nil // not behind Running: the built-in plugins hear of it last
		e.announced = ev.Kind == plugin.PreSuspend
	}
	var err error
	if !e.failed && e.mod.subscribed(ev.Kind) {
		err = e.deliver(ctx, ev)
	}
	if e.keep == 0 {
		e.finish(ev)
	}
	return err
}

// finish ends the sequence behind its last event.
func (e *extension) finish(ev plugin.Event) {
	if !e.ends(ev.Kind) {
		return
	}
	if !e.failed && (ev.Kind != plugin.Outcome || ev.Outcome.Committed) {
		e.commit()
	}
	e.reset()
	if ev.Kind != plugin.Exit {
		e.prepare()
	}
}

// prepare makes the instance of the next sequence, so that its first event
// need not wait: the runtime of a language takes milliseconds to begin.
func (e *extension) prepare() {
	if e.next != nil {
		return
	}
	next := make(chan made, 1)
	e.next = next
	e.mod.making.Go(func() {
		in, skip, err := e.mod.instantiate(context.Background(), e)
		next <- made{in, skip, err}
	})
}

// instance returns the one that was prepared, or a new one.
func (e *extension) instance(ctx context.Context) (*instance, error) {
	var m made
	if e.next != nil {
		m = <-e.next
		e.next = nil
	} else {
		m.in, m.skip, m.err = e.mod.instantiate(ctx, e)
	}
	if m.err == nil && m.skip {
		m.err = errors.New("init: has nothing to do here, unlike when it was loaded")
	}
	return m.in, m.err
}

// begins says whether kind is the first event of a sequence.
func (e *extension) begins(kind plugin.Kind) bool {
	switch kind {
	case plugin.Launch, plugin.PreSuspend, plugin.Restart, plugin.Exit:
		return true
	case plugin.PreCheckpoint:
		return !e.announced
	}
	return false
}

// ends says whether kind is the last event of a sequence.
func (e *extension) ends(kind plugin.Kind) bool {
	switch kind {
	case plugin.Launch, plugin.Running, plugin.Exit, plugin.Outcome:
		return true
	case plugin.Resume:
		return !e.announced
	}
	return false
}

// reset forgets a sequence.
func (e *extension) reset() {
	e.in.close()
	e.in, e.failed, e.announced = nil, false, false
	e.saved, e.hasSaved, e.undo = nil, false, nil
	e.decided, e.taken, e.kept = map[abi.FDRef]fileState{}, nil, 0
	e.environ, e.keep = nil, 0
}

// commit makes the state of this sequence the extension's.
func (e *extension) commit() {
	switch {
	case e.in != nil && e.in.written:
		e.committed = e.in.state
	case e.hasSaved:
		e.committed = e.saved
	}
}

// deliver calls the guest. When that fails, the instance is done for, and what
// it wrote to the program is put back.
func (e *extension) deliver(ctx context.Context, ev plugin.Event) error {
	err := e.call(ctx, ev)
	if err == nil {
		return nil
	}
	e.failed = true
	e.in.close()
	e.in = nil
	e.decided, e.kept = map[abi.FDRef]fileState{}, 0
	e.environ, e.paths, e.keep = nil, nil, 0
	err = errors.Join(err, e.rollBack(ev.Procs))
	if e.mod.cfg.Warn {
		e.log.Warn().Err(err).Stringer("event", ev.Kind).Msg("goes on without the extension")
		return nil
	}
	return err
}

func (e *extension) call(ctx context.Context, ev plugin.Event) error {
	if e.in == nil {
		in, err := e.instance(ctx)
		if err != nil {
			return err
		}
		e.in = in
	}
	keep, err := e.in.handle(ctx, ev)
	e.keep = keep
	return err
}

// rollBack puts back what the guest overwrote, the last first.
func (e *extension) rollBack(procs []plugin.Process) error {
	var errs []error
	for i := len(e.undo) - 1; i >= 0; i-- {
		w := e.undo[i]
		for _, p := range procs {
			if p.PID() != w.pid {
				continue
			}
			if _, err := p.WriteAt(w.old, w.addr); err != nil {
				errs = append(errs, fmt.Errorf("pid %d: put back %d bytes at %#x: %w", w.pid, len(w.old), w.addr, err))
			}
		}
	}
	e.undo = nil
	return errors.Join(errs...)
}

// describeEvent makes the event that a guest reads.
func describeEvent(ev plugin.Event) abi.Event {
	out := abi.Event{Kind: ev.Kind.String(), Generation: ev.Generation, Processes: []abi.Process{}}
	inner := map[int]int{}
	for _, p := range ev.Procs {
		inner[p.HostPID()] = p.PID()
	}
	for _, p := range ev.Procs {
		d := abi.Process{PID: p.PID(), PPID: inner[parentOf(p.HostPID())], Threads: len(p.Threads())}
		if ev.Kind != plugin.Restart {
			proc := "/proc/" + strconv.Itoa(p.HostPID())
			d.Exe, _ = os.Readlink(proc + "/exe")
			d.Cwd, _ = os.Readlink(proc + "/cwd")
			if line, err := os.ReadFile(proc + "/cmdline"); err == nil && len(line) > 0 {
				d.Argv = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
			}
		}
		out.Processes = append(out.Processes, d)
	}
	if o := ev.Outcome; o != nil {
		out.Outcome = &abi.Figures{Committed: o.Committed, Reason: o.Reason, Dir: o.Dir, Bytes: o.Bytes, RawBytes: o.RawBytes,
			Pause: int64(o.Pause), Total: int64(o.Total), Processes: o.Processes, Threads: o.Threads}
	}
	return out
}

// parentOf reads the parent from /proc/PID/stat, proc_pid_stat(5); 0 where
// there is none.
func parentOf(host int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(host) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(string(fields[1]))
	return ppid
}

var (
	_ plugin.Plugin = (*extension)(nil)
	_ plugin.Stater = (*extension)(nil)
)
