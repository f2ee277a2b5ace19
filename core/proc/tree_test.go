package proc

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/hiatus-project/hiatus/plugin"
)

// model is the kernel's rules for parents, sessions and groups.
type model struct {
	procs  map[int]*modelProc
	reaper int
}

type modelProc struct {
	node
}

func newModel(reaper int) *model {
	return &model{reaper: reaper, procs: map[int]*modelProc{reaper: {node: node{pid: reaper, subreaper: true}}}}
}

func (m *model) fork(by, pid int) {
	parent := m.procs[by]
	m.procs[pid] = &modelProc{node: node{pid: pid, ppid: by, pgid: parent.pgid, sid: parent.sid}}
}

func (m *model) setsid(pid int) error {
	for _, p := range m.procs {
		if p.pgid == pid {
			return fmt.Errorf("setsid of %d: it leads a group", pid)
		}
	}
	m.procs[pid].sid, m.procs[pid].pgid = pid, pid
	return nil
}

func (m *model) setpgid(pid, pgid int) error {
	p := m.procs[pid]
	if p.sid == pid {
		return fmt.Errorf("setpgid of %d: it leads a session", pid)
	}
	if pgid != pid && !slices.ContainsFunc(m.live(), func(q *modelProc) bool { return q.pgid == pgid && q.sid == p.sid }) {
		return fmt.Errorf("setpgid of %d: no group %d in session %d", pid, pgid, p.sid)
	}
	p.pgid = pgid
	return nil
}

func (m *model) exit(pid int) {
	p := m.procs[pid]
	adopter := m.procs[p.ppid]
	for !adopter.subreaper {
		adopter = m.procs[adopter.ppid]
	}
	for _, q := range m.procs {
		if q.ppid == pid {
			q.ppid = adopter.pid
		}
	}
	delete(m.procs, pid)
}

func (m *model) live() []*modelProc {
	var out []*modelProc
	for _, p := range m.procs {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *modelProc) int { return a.pid - b.pid })
	return out
}

// nodes returns the tree below the reaper, parents first.
func (m *model) nodes() []node {
	var out []node
	var below func(pid int)
	below = func(pid int) {
		for _, p := range m.live() {
			if p.ppid == pid && p.pid != m.reaper {
				n := p.node
				if n.ppid == m.reaper {
					n.ppid = 0
				}
				out = append(out, n)
				below(p.pid)
			}
		}
	}
	below(m.reaper)
	return out
}

func (m *model) run(steps []step) error {
	for _, s := range steps {
		var err error
		switch s.kind {
		case stepFork:
			if m.procs[s.by] == nil || m.procs[s.pid] != nil {
				return fmt.Errorf("fork of %d by %d", s.pid, s.by)
			}
			m.fork(s.by, s.pid)
		case stepSetsid:
			err = m.setsid(s.pid)
		case stepSetpgid:
			err = m.setpgid(s.pid, s.pgid)
		case stepSubreaper:
			m.procs[s.pid].subreaper = true
		case stepExit:
			if m.procs[s.pid].ppid != s.by {
				return fmt.Errorf("%d waits for %d, child of %d", s.by, s.pid, m.procs[s.pid].ppid)
			}
			m.exit(s.pid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// history lets a random tree live: what it leaves behind must be plannable.
func history(r *rand.Rand, m *model, events int) {
	next := 100
	m.fork(m.reaper, next)
	_ = m.setsid(next)
	for range events {
		live := m.live()
		p := live[r.Intn(len(live))]
		if p.pid == m.reaper {
			continue
		}
		switch r.Intn(8) {
		case 0, 1, 2, 3:
			next++
			m.fork(p.pid, next)
		case 4:
			_ = m.setsid(p.pid)
		case 5:
			_ = m.setpgid(p.pid, p.pid)
		case 6:
			q := live[r.Intn(len(live))]
			if q.pgid != 0 {
				_ = m.setpgid(p.pid, q.pgid)
			}
		case 7:
			if r.Intn(6) == 0 {
				p.subreaper = true
			} else if len(live) > 3 {
				m.exit(p.pid)
			}
		}
	}
}

func TestPlanMakesRandomTreesAgain(t *testing.T) {
	const trees = 3000
	refused := 0
	for seed := range int64(trees) {
		r := rand.New(rand.NewSource(seed))
		m := newModel(2)
		history(r, m, 5+r.Intn(60))
		want := m.nodes()
		steps, err := planTree(want, 2, nil, 1<<15)
		if _, ok := errors.AsType[*plugin.RefusalError](err); ok && slices.ContainsFunc(want, func(n node) bool { return n.subreaper }) {
			refused++ // two adopters of one session, for example
			continue
		}
		if err != nil {
			t.Errorf("seed %d: %v\n%+v", seed, err, want)
			continue
		}
		again := newModel(2)
		if err := again.run(steps); err != nil {
			t.Errorf("seed %d: %v\nwant %+v\nsteps %+v", seed, err, want, steps)
			continue
		}
		byPid := func(a, b node) int { return a.pid - b.pid }
		got := again.nodes()
		slices.SortFunc(got, byPid)
		slices.SortFunc(want, byPid)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d:\n got %+v\nwant %+v", seed, got, want)
		}
		if t.Failed() {
			return
		}
	}
	if refused > trees/50 {
		t.Errorf("%d of %d trees are refused", refused, trees)
	}
	t.Logf("%d of %d trees are refused", refused, trees)
}
