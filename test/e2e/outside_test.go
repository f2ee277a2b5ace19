package e2e

import (
	"fmt"
	"io"
	"net"
	"regexp"
)

// outsider listens in the process of the tests, which is outside of the
// computation. To a client it sends "unread", and then back what it gets.
func (tr *trial) outsider(network, address string) net.Addr {
	tr.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		tr.Fatal(err)
	}
	tr.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tr.Cleanup(func() { c.Close() })
			go func() {
				defer c.Close()
				if _, err := io.WriteString(c, "unread"); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	return l.Addr()
}

// outsideTCP listens on loopback and returns the arguments of the fixture.
func (tr *trial) outsideTCP(kind string) (args []string, at net.Addr) {
	tr.Helper()
	host := map[string]string{"tcp": "127.0.0.1:0", "tcp6": "[::1]:0"}[kind]
	at = tr.outsider("tcp", host)
	return []string{tr.suite.fixture("outside"), kind, fmt.Sprint(at.(*net.TCPAddr).Port)}, at
}

// outsideRefused: the user reads which connection it is, and it goes on.
func (tr *trial) outsideRefused(want string, args ...string) {
	tr.Helper()
	tr.launch(args...)
	tr.reach(1)
	pattern := regexp.MustCompile(`pid \d+ fd \d+: socket:.*` + want)
	for n, command := range [][]string{{"check", tr.name}, {"checkpoint", tr.name}, {"checkpoint", tr.name, "--kill"}} {
		o := tr.hiatus(command...)
		if o.code != 1 || !pattern.MatchString(o.stdout+o.stderr) {
			tr.Fatalf("hiatus %q: want a refusal with %q, got %s", command, pattern, o)
		}
		tr.pass(n + 1)
	}
	if g := tr.generations(); len(g) != 0 {
		tr.Errorf("a generation was committed: %v", g)
	}
	tr.finish()
	tr.gone()
}

func tcpOutsideRefused(tr *trial) {
	args, at := tr.outsideTCP("tcp")
	tr.outsideRefused("to "+regexp.QuoteMeta(at.String())+": outside the computation", args...)
}

func unixOutsideRefused(tr *trial) {
	path := tr.path("peer")
	tr.outsider("unix", path)
	tr.own(path)
	tr.outsideRefused(`peer \(inode \d+, name "`+regexp.QuoteMeta(path)+`"\) is outside the computation`, tr.suite.fixture("outside"), "unix", path)
}

// tcpOutsideClosed goes on with the connection after a checkpoint, and with
// one that was reset after a restart.
func tcpOutsideClosed(tr *trial, kind string) {
	args, _ := tr.outsideTCP(kind)
	tr.launchWith([]string{"--tcp-outside", "close"}, args...)
	tr.reach(1)
	tr.checkpoint()
	tr.pass(1)
	tr.suspend()
	tr.write("restarted", "")
	for n := 2; n <= 3; n++ {
		tr.restart()
		tr.pass(n)
		if n == 2 {
			tr.suspend()
		}
	}
	tr.finish()
	tr.gone()
}
