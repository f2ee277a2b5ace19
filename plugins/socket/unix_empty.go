package socket

import (
	"errors"

	"golang.org/x/sys/unix"
)

var errEmpty = errors.New("an empty message may be queued, which the kernel shows only once")

// remember looks at the queue, and adds the empty messages that were seen
// before and are still there: the kernel shows such behind SO_PEEK_OFF once
// (__skb_try_recv_from_queue, net/core/datagram.c).
func (c claim) remember(s *unixSocket, l look) ([]message, error) {
	queue, err := l.messages()
	if err != nil {
		return nil, err
	}
	return c.plugin.rememberEmpty(l, c.ino, queue, func() (func([]message) bool, error) { return fitting(s) })
}

// rememberEmpty returns what is queued where queue can be seen, and notes it.
// fitting gives what else tells a queue that may be from one that cannot be.
func (p *Plugin) rememberEmpty(l look, ino uint32, queue []message, fitting func() (func([]message) bool, error)) ([]message, error) {
	if before, known := p.seen[ino]; known {
		empty, queued, err := l.head()
		if err != nil {
			return nil, err
		}
		fits, err := fitting()
		if err != nil {
			return nil, err
		}
		queue, err = align(before, queue, func(q []message) bool {
			return (len(q) > 0) == queued && (!queued || (len(q[0].Data) == 0) == empty) && fits(q)
		})
		if err != nil {
			return nil, err
		}
	}
	delete(p.seen, ino)
	for _, m := range queue {
		if len(m.Data) == 0 {
			p.seen[ino] = queue
		}
	}
	return queue, nil
}

// anyQueue is for sockets of which nothing else is known.
func anyQueue() (func([]message) bool, error) { return func([]message) bool { return true }, nil }

// fitting tells a queue that s may have from one that it cannot have: what the
// peer has sent and was not read is charged to the peer, by a size that
// depends on the length of each message alone. Where nobody is charged, every
// queue may be.
func fitting(s *unixSocket) (func([]message) bool, error) {
	if s.Peer == 0 {
		return func([]message) bool { return true }, nil
	}
	d, err := diagnose(s.Peer)
	if err != nil {
		return nil, err
	}
	costs := map[int]int{}
	return func(q []message) bool {
		total := 0
		for _, m := range q {
			cost, known := costs[len(m.Data)]
			if !known {
				cost = messageCost(s.Type, len(m.Data))
				costs[len(m.Data)] = cost
			}
			total += cost
		}
		// udiag_wqueue, of a socket that does not listen
		return total == int(d.backlog)
	}, nil
}

// messageCost returns what a message of size bytes is charged, 0 where that
// cannot be found out.
func messageCost(typ, size int) int {
	pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if _, err := unix.SendmsgN(pair[0], make([]byte, size), nil, nil, unix.MSG_DONTWAIT); err != nil {
		return 0
	}
	cost, _ := unix.IoctlGetInt(pair[0], unix.TIOCOUTQ)
	return cost
}

// align finds the queue of which visible is what can be seen, but for messages
// that were empty in old already: some of old, from its beginning, were read,
// and others came behind. possible tells what else is known of it.
func align(old, visible []message, possible func([]message) bool) ([]message, error) {
	var found [][]message
	for read := range len(old) + 1 {
		queue, ok := continued(old[read:], visible)
		if ok && possible(queue) && (len(found) == 0 || !equalQueues(found[0], queue)) {
			found = append(found, queue)
		}
	}
	if len(found) != 1 {
		return nil, errEmpty
	}
	return found[0], nil
}

// continued returns rest with what is visible behind it.
func continued(rest, visible []message) ([]message, bool) {
	queue := make([]message, 0, len(rest)+len(visible))
	for _, m := range rest {
		if len(m.Data) > 0 {
			if len(visible) == 0 || !visible[0].equal(m) {
				return nil, false
			}
			m, visible = visible[0], visible[1:]
		}
		queue = append(queue, m)
	}
	return append(queue, visible...), true
}

func equalQueues(a, b []message) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].equal(b[i]) {
			return false
		}
	}
	return true
}

// head says whether there is a first message, and whether it is empty.
func (l look) head() (empty, queued bool, err error) {
	look := func() error {
		r, err := l.receive(-1, make([]byte, 1))
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		r.close()
		empty, queued = r.n == 0, r.n > 0 || !l.ended || r.stamp
		return err
	}
	err = l.stamped(func() error { return l.option(unix.SO_PEEK_OFF, -1, look) })
	return empty && queued, queued, err
}
