package proc

import (
	"fmt"
	"slices"

	"github.com/hiatus-project/hiatus/plugin"
)

// node is what the plan of a tree needs to know of a process.
type node struct {
	pid, ppid, pgid, sid int // ppid 0: the reaper's child; pgid, sid 0: those of the agent
	subreaper            bool
}

type stepKind uint8

const (
	stepFork      stepKind = iota + 1 // by makes pid
	stepSetsid                        // pid
	stepSetpgid                       // pid joins or makes the group pgid
	stepSubreaper                     // pid
	stepExit                          // pid, a helper, ends; by waits for it
)

// step is one action in rebuilding a tree.
type step struct {
	kind stepKind
	pid  int
	by   int
	pgid int
	// helper: the process is not of the tree, and ends before it is done.
	helper bool
	// any: another id does as well.
	any bool
}

// treePlan is the order in which a tree is made: a pure function of its nodes,
// so that a tree that could not be made is refused when it is saved.
//
// A process is in the session of its parent at the time of the fork, so that
// a child with another session than its parent's was born before the parent
// called setsid(2), or was adopted. What the kernel forgot is made again by
// helpers: leaders of sessions and groups that have ended, and parents that
// have left orphans.
type treePlan struct {
	reaper   int
	nodes    map[int]*planned
	order    []*planned
	steps    []step
	used     map[int]bool // ids of threads, which a helper must not take
	nextPid  int
	deferred []*planned
}

type planned struct {
	node
	helper   bool
	parent   *planned
	children []*planned
	born     bool
	birth    int  // the session it is born in
	leads    bool // it has called setsid
	need     int  // the session it must be born in; anySession
}

const anySession = -1

// planTree returns the steps that make nodes below the process reaper, which
// exists and is in the agent's session and group. No helper gets an id that is
// used, nor one of limit and above.
func planTree(nodes []node, reaper int, used map[int]bool, limit int) ([]step, error) {
	p := &treePlan{reaper: reaper, nodes: map[int]*planned{}, used: used, nextPid: limit}
	root := &planned{node: node{pid: reaper, subreaper: true}, born: true}
	p.nodes[reaper] = root
	for _, n := range nodes {
		if p.nodes[n.pid] != nil {
			return nil, fmt.Errorf("process tree: pid %d stands twice", n.pid)
		}
		x := &planned{node: n}
		p.nodes[n.pid] = x
		p.order = append(p.order, x)
	}
	if err := p.addLeaders(root); err != nil {
		return nil, err
	}
	for _, n := range p.order {
		parent := root
		if n.ppid != 0 {
			parent = p.nodes[n.ppid]
		}
		if parent == nil || parent == n {
			return nil, fmt.Errorf("process tree: pid %d has no parent %d", n.pid, n.ppid)
		}
		n.parent = parent
		parent.children = append(parent.children, n)
	}
	p.findNeeds()
	p.leadAsReaper(root)
	p.bearChildren(root, func(*planned) bool { return true })
	if err := p.adopt(root); err != nil {
		return nil, err
	}
	for _, n := range p.order {
		if !n.born {
			return nil, fmt.Errorf("process tree: pid %d is below no root", n.pid)
		}
	}
	p.groups()
	p.endHelpers()
	return p.steps, nil
}

func (p *treePlan) add(s step) { p.steps = append(p.steps, s) }

// addLeaders adds helpers for sessions and groups whose leader has ended.
func (p *treePlan) addLeaders(root *planned) error {
	helper := func(pid, sid int) {
		h := &planned{node: node{pid: pid, pgid: pid, sid: sid}, helper: true}
		p.nodes[pid] = h
		p.order = append(p.order, h)
	}
	for _, n := range slices.Clone(p.order) {
		if n.sid != 0 && p.nodes[n.sid] == nil {
			helper(n.sid, n.sid)
			// Orphans are adopted by the parent of the helper's line.
			if parent := p.nodes[n.ppid]; parent != nil && parent.subreaper && parent.sid != n.sid {
				p.nodes[n.sid].ppid = parent.pid
			}
		}
	}
	for _, n := range slices.Clone(p.order) {
		if n.pgid == 0 || n.pgid == root.pid {
			continue
		}
		if g := p.nodes[n.pgid]; g == nil {
			helper(n.pgid, n.sid)
		} else if g.sid != n.sid {
			return &plugin.RefusalError{PID: n.pid, FD: -1, Object: fmt.Sprintf("process group %d", n.pgid),
				Reason: fmt.Sprintf("its leader is in session %d, the process in session %d", g.sid, n.sid)}
		}
	}
	return nil
}

// findNeeds finds for each process the session it must be born in: its own, or
// for the leader of one that of the children it bore before it called
// setsid(2), of their children in turn, and so on.
func (p *treePlan) findNeeds() {
	for _, n := range slices.Backward(p.order) { // helpers, then children before parents
		n.need = n.sid
		if n.sid != n.pid {
			continue
		}
		n.need = anySession
		for _, c := range n.children {
			if c.need != anySession && c.need != n.sid && !p.adopted(c) {
				n.need = c.need
			}
		}
	}
}

// adopted says whether c, in another session than its parent's, was adopted by
// it, and not borne before it called setsid: the session began below it.
func (p *treePlan) adopted(c *planned) bool {
	if !c.parent.subreaper {
		return false
	}
	for a := p.nodes[c.need]; a != nil; a = a.parent {
		if a == c.parent {
			return true
		}
	}
	return false
}

// leadAsReaper lets the reaper lead the session or group that it led as the
// agent of the original.
func (p *treePlan) leadAsReaper(root *planned) {
	for _, n := range p.order {
		if n.sid == root.pid && root.sid == 0 {
			root.sid = root.pid
			p.add(step{kind: stepSetsid, pid: root.pid})
		}
	}
	for _, n := range p.order {
		if n.pgid == root.pid && root.sid == 0 {
			p.add(step{kind: stepSetpgid, pid: root.pid, pgid: root.pid})
			break
		}
	}
}

// bear makes n as a child of by, which is its parent or a helper.
func (p *treePlan) bear(n *planned, by int, session int) {
	p.add(step{kind: stepFork, pid: n.pid, by: by, helper: n.helper})
	n.born, n.birth = true, session
	if n.subreaper {
		p.add(step{kind: stepSubreaper, pid: n.pid})
	}
	if n.sid == n.pid {
		p.bearChildren(n, func(c *planned) bool { return c.need == n.birth && c.need != n.sid })
		p.add(step{kind: stepSetsid, pid: n.pid})
		n.leads = true
	}
	p.bearChildren(n, func(*planned) bool { return true })
}

// bearChildren makes the children of n that can be born in its session now;
// of the others those that could never be are left to adopt.
func (p *treePlan) bearChildren(n *planned, which func(*planned) bool) {
	session := n.sid
	early := n.sid == n.pid && n.parent != nil && !n.leads
	if early {
		session = n.birth
	}
	for _, c := range n.children {
		switch {
		case c.born || !which(c):
		case c.need == anySession || c.need == session:
			p.bear(c, n.pid, session)
		case !early && !slices.Contains(p.deferred, c):
			p.deferred = append(p.deferred, c)
		}
	}
}

// adopt makes the orphans: a helper in the right session bears them and ends,
// which leaves them to the nearest subreaper (prctl(2), PR_SET_CHILD_SUBREAPER).
func (p *treePlan) adopt(root *planned) error {
	for len(p.deferred) > 0 {
		progress := false
		waiting := p.deferred
		p.deferred = nil
		for _, n := range waiting {
			by := p.memberOf(n.need, n.parent)
			if by == nil {
				p.deferred = append(p.deferred, n)
				continue
			}
			h := p.freePid()
			p.add(step{kind: stepFork, pid: h, by: by.pid, helper: true, any: true})
			p.bear(n, h, n.need)
			p.add(step{kind: stepExit, pid: h, by: by.pid, helper: true})
			progress = true
		}
		if !progress {
			n := p.deferred[0]
			return &plugin.RefusalError{PID: n.pid, FD: -1, Object: fmt.Sprintf("session %d", n.sid),
				Reason: fmt.Sprintf("its parent %d is in another session and has not adopted it: the process tree cannot be made again", n.parent.pid)}
		}
	}
	return nil
}

// memberOf finds a process in the session sid whose orphans parent adopts.
func (p *treePlan) memberOf(sid int, parent *planned) *planned {
	for _, n := range append([]*planned{p.nodes[p.reaper]}, p.order...) {
		if !n.born || n.sid != sid {
			continue
		}
		a := n
		for a != nil && !a.subreaper {
			a = a.parent
		}
		if a == parent {
			return n
		}
	}
	return nil
}

// freePid returns an id that no process of the tree has.
func (p *treePlan) freePid() int {
	for {
		p.nextPid--
		if p.nodes[p.nextPid] == nil && !p.used[p.nextPid] {
			return p.nextPid
		}
	}
}

// groups lets every process join its group: first those make theirs whose id
// a group has, then the others join, last those move that made a group and
// have left it to others.
func (p *treePlan) groups() {
	join := func(n *planned, pgid int) {
		if pgid != 0 && n.sid != n.pid {
			p.add(step{kind: stepSetpgid, pid: n.pid, pgid: pgid})
		}
	}
	named := map[int]bool{}
	for _, n := range p.order {
		named[n.pgid] = true
	}
	for _, n := range p.order {
		if named[n.pid] {
			join(n, n.pid)
		}
	}
	for _, makers := range []bool{false, true} {
		for _, n := range p.order {
			if n.pgid != n.pid && named[n.pid] == makers {
				join(n, n.pgid)
			}
		}
	}
}

// endHelpers ends the helpers that lead sessions and groups.
func (p *treePlan) endHelpers() {
	for _, n := range slices.Backward(p.order) {
		if n.helper {
			p.add(step{kind: stepExit, pid: n.pid, by: n.parent.pid, helper: true})
		}
	}
}
