package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawFigures are the limits of the same round, in seconds.
type rawFigures struct {
	Fork   float64 `json:"fork"`
	Write1 float64 `json:"write1"`
	Write2 float64 `json:"write2"`
	Sync1  float64 `json:"write1_sync"`
	Sync2  float64 `json:"write2_sync"`
	Read2  float64 `json:"read2"`
	Copy2  float64 `json:"copy2"`
	Map    float64 `json:"map"`
}

// round is one checkpoint and one restart.
type round struct {
	raw      rawFigures
	pause    float64 // seconds, as the program sees it
	commit   float64 // seconds from the command's start to its end
	first    float64 // seconds from the start of restart to the first step
	bytes    float64 // of the image
	agent    float64 // bytes, the largest resident size of the agent
	slowdown float64 // steps a second while the image is written, as a share of those before
	full     full    // the generation before, where this one is incremental
}

// full is a generation that stores all memory.
type full struct {
	commit float64 // seconds, as round.commit
	bytes  float64
}

// dirtyShare of the pages are written to before each incremental generation.
const dirtyShare = 0.05

type result struct {
	subject
	rounds []round
}

// stats is the file that the subject writes its figures to.
type stats struct{ mem []byte }

func newStats(path string) (stats, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return stats{}, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return stats{}, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return stats{mem}, err
}

func (s stats) word(i int) *uint64  { return (*uint64)(unsafe.Pointer(&s.mem[8*i])) }
func (s stats) ready() bool         { return atomic.LoadUint64(s.word(0)) == 1 }
func (s stats) steps() uint64       { return atomic.LoadUint64(s.word(1)) }
func (s stats) reset()              { atomic.AddUint64(s.word(2), 1) }
func (s stats) longest() float64    { return math.Float64frombits(atomic.LoadUint64(s.word(3))) }
func (s stats) after() float64      { return math.Float64frombits(atomic.LoadUint64(s.word(4))) }
func (s stats) clear()              { atomic.StoreUint64(s.word(3), 0); atomic.StoreUint64(s.word(4), 0) }
func (s stats) spread(pages uint64) { atomic.StoreUint64(s.word(5), pages) }
func (s stats) spreading() bool     { return atomic.LoadUint64(s.word(5)) != 0 }
func (s stats) close()              { _ = unix.Munmap(s.mem) }
func (s stats) rate(d time.Duration) float64 {
	n, begun := s.steps(), time.Now()
	time.Sleep(d)
	return float64(s.steps()-n) / time.Since(begun).Seconds()
}

// await polls: the subject has nothing but memory to tell with.
func await(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (b *bench) measure(ctx context.Context, c subject) (result, error) {
	r := result{subject: c}
	root := b.tmpfs
	if c.where == "disk" {
		root = b.disk
	}
	dir, err := os.MkdirTemp(root, "hiatus-speed-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	// On the disk: memory with a name is the computation's own, and a restart would not share it.
	figures, err := os.MkdirTemp(b.disk, "hiatus-speed-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(figures)
	path := filepath.Join(figures, "stats")
	st, err := newStats(path)
	if err != nil {
		return r, err
	}
	defer st.close()
	b.n++
	m := &measured{b: b, c: c, dir: dir, st: st, name: fmt.Sprintf("speed-%d-%d", os.Getpid(), b.n)}
	args := append([]string{"launch", "--detach", "--close-fds", "--name", m.name, "--ckptdir", dir, "--keep", "1"}, c.launchFlags()...)
	args = append(args, "--", b.program("subject"))
	if err := m.start(ctx, append(args, c.args(path)...)...); err != nil {
		return r, err
	}
	defer func() { _, _ = m.hiatus(context.WithoutCancel(ctx), "kill", m.name) }()
	if err := await(ctx, "the subject", st.ready); err != nil {
		return r, err
	}
	if c.mode == "incremental" { // the first one is full
		if err := m.checkpointFull(ctx); err != nil {
			return r, err
		}
	}
	for range b.rounds {
		one, err := m.round(ctx)
		if err != nil {
			return r, err
		}
		r.rounds = append(r.rounds, one)
	}
	return r, nil
}

// measured is a subject that runs.
type measured struct {
	b    *bench
	c    subject
	dir  string
	st   stats
	name string
	full full // the last one
}

func (m *measured) hiatus(ctx context.Context, args ...string) ([]byte, error) {
	return output(exec.CommandContext(ctx, m.b.hiatus, args...))
}

// start runs hiatus with what it leaves running, which keeps its output open.
func (m *measured) start(ctx context.Context, args ...string) error {
	said, err := os.CreateTemp(m.dir, "output-")
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.CommandContext(ctx, m.b.hiatus, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(said.Name())
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return nil
}

// supervise starts hiatus, which stays with the subject. over gets how it ended.
func (m *measured) supervise(ctx context.Context, args ...string) (over <-chan error, err error) {
	said, err := os.CreateTemp(m.dir, "output-")
	if err != nil {
		return nil, err
	}
	defer said.Close()
	cmd := exec.CommandContext(ctx, m.b.hiatus, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		text, _ := os.ReadFile(said.Name())
		ended <- fmt.Errorf("%s: ended: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}()
	return ended, nil
}

func (m *measured) round(ctx context.Context) (round, error) {
	var r round
	usual, err := m.prepare(ctx, &r)
	if err != nil {
		return r, err
	}
	out, err := output(exec.CommandContext(ctx, m.b.program("raw"), fmt.Sprint(m.c.mib), m.c.pages, m.c.data, m.dir))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r.raw); err != nil {
		return r, fmt.Errorf("raw: %w", err)
	}
	if err := m.checkpoint(ctx, &r, usual); err != nil {
		return r, err
	}
	return r, m.restart(ctx, &r)
}

// prepare returns how many steps a second the subject makes. What takes time stands here:
// memory that a virtual machine has not used for a moment its host takes back, and each
// page of it costs microseconds again. The checkpoint follows at once on raw, as what raw
// does follows on each other.
func (m *measured) prepare(ctx context.Context, r *round) (usual float64, err error) {
	if m.c.mode == "incremental" {
		m.st.spread(uint64(float64(m.c.mib) * (1 << 20) / 4096 * dirtyShare))
		if err := await(ctx, "the pages that are written to", func() bool { return !m.st.spreading() }); err != nil {
			return 0, err
		}
		r.full = m.full
	}
	if m.c.mode == "again" {
		if _, err := m.commit(ctx); err != nil {
			return 0, err
		}
	}
	return m.st.rate(200 * time.Millisecond), nil
}

func (m *measured) checkpoint(ctx context.Context, r *round, usual float64) error {
	m.st.reset()
	time.Sleep(10 * time.Millisecond)
	n := m.st.steps()
	made, err := m.commit(ctx)
	if err != nil {
		return err
	}
	r.commit, r.bytes, r.pause = made.commit, made.bytes, m.st.longest()
	if running := r.commit - r.pause; running > 0 {
		r.slowdown = float64(m.st.steps()-n) / running / usual
	}
	r.agent, err = m.agentMemory(ctx)
	return err
}

// commit makes one generation.
func (m *measured) commit(ctx context.Context) (made full, err error) {
	begun := time.Now()
	out, err := m.hiatus(ctx, "checkpoint", m.name, "--json")
	if err != nil {
		return made, err
	}
	made.commit = time.Since(begun).Seconds()
	var answer struct {
		Bytes float64 `json:"bytes"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return made, fmt.Errorf("checkpoint --json: %w", err)
	}
	made.bytes = answer.Bytes
	return made, nil
}

func (m *measured) checkpointFull(ctx context.Context) (err error) {
	m.full, err = m.commit(ctx)
	return err
}

// agentMemory reads VmHWM, proc_pid_status(5).
func (m *measured) agentMemory(ctx context.Context) (float64, error) {
	out, err := m.hiatus(ctx, "status", m.name, "--json")
	if err != nil {
		return 0, err
	}
	var status struct {
		Agents []struct {
			PID int `json:"pid"`
		} `json:"agents"`
	}
	if err := json.Unmarshal(out, &status); err != nil || len(status.Agents) != 1 {
		return 0, fmt.Errorf("status --json: %d agents: %w", len(status.Agents), err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", status.Agents[0].PID))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	field := bytes.Fields(rest)
	if len(field) == 0 {
		return 0, errors.New("no VmHWM")
	}
	kb, err := strconv.ParseFloat(string(field[0]), 64)
	return kb * 1024, err
}

func (m *measured) restart(ctx context.Context, r *round) error {
	if _, err := m.hiatus(ctx, "kill", m.name); err != nil {
		return err
	}
	if err := await(ctx, "the end of the subject", func() bool {
		_, err := m.hiatus(ctx, "status", m.name)
		return err != nil
	}); err != nil {
		return err
	}
	m.st.clear()
	begun := float64(time.Now().UnixNano()) / 1e9
	args := append([]string{"restart", "--name", m.name}, m.c.restartFlags()...)
	over, err := m.supervise(ctx, append(args, filepath.Join(m.dir, m.name))...)
	if err != nil {
		return err
	}
	err = await(ctx, "the first step", func() bool { return m.st.after() > begun || len(over) > 0 })
	if err == nil && len(over) > 0 {
		err = <-over
	}
	if err != nil {
		return err
	}
	r.first = m.st.after() - begun
	if m.c.mode == "incremental" { // the first one after a restart is full
		return m.checkpointFull(ctx)
	}
	return nil
}

// callCost is one call without and with hiatus, in nanoseconds.
type callCost struct {
	name         string
	native, with float64
}

// callCosts runs the calls by turns: alone, below hiatus launch.
func (b *bench) callCosts(ctx context.Context) ([]callCost, error) {
	fmt.Fprintln(os.Stderr, "launch")
	names := []string{"getpid", "open_close", "signal", "thread", "fork_exec"}
	least := [2]map[string]float64{{}, {}}
	dir, err := os.MkdirTemp(b.tmpfs, "hiatus-speed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for range b.rounds {
		for i, cmd := range []*exec.Cmd{
			exec.CommandContext(ctx, b.program("calls")),
			exec.CommandContext(ctx, b.hiatus, "launch", "--ckptdir", dir, "--", b.program("calls")),
		} {
			out, err := output(cmd)
			if err != nil {
				return nil, err
			}
			var got map[string]float64
			if err := json.Unmarshal(out, &got); err != nil {
				return nil, fmt.Errorf("calls: %w", err)
			}
			for name, ns := range got {
				if old, ok := least[i][name]; !ok || ns < old {
					least[i][name] = ns
				}
			}
		}
	}
	var costs []callCost
	for _, name := range names {
		costs = append(costs, callCost{name, least[0][name], least[1][name]})
	}
	return costs, nil
}
