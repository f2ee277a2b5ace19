package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
)

// servers are programs that make heavy use of kernel objects: sockets, shared
// memory, semaphores, terminals.
func servers() []program {
	return []program{
		script("python3 asyncio", "asyncio_echo.py", "/usr/bin/python3"),
		script("node http", "http.js", "node"),
		server("redis", "redis.sh", "redis-server"),
		server("postgres, pgbench", "postgres.sh", "psql").only("user"), // it refuses to run as root
		server("nginx, wrk", "nginx.sh", "nginx", "wrk").with(1),
		gnuParallel(),
		script("git clone", "clone.sh", "bash").with(1).wants("git"),
		// Agents are not dumpable.
		job("ssh-agent", "agents.sh", "ssh").wants("ssh-agent").launched("--userns"),
		job("gpg-agent", "agents.sh", "gpg").wants("gpg", "gpg-agent").launched("--userns"),
		gnuScreen(),
		script("R", "numbers.R", "Rscript", "--vanilla"),
		script("octave", "numbers.m", "octave-cli", "--no-history", "--no-init-file"),
		mpi("mpich"),
		mpi("openmpi", "--oversubscribe"),
	}
}

// only restricts p to one identity.
func (p program) only(identity string) program {
	p.as = identity
	return p
}

// wants adds commands that must be there.
func (p program) wants(commands ...string) program {
	p.needs = append(p.needs, commands...)
	return p
}

// launched adds flags of hiatus launch.
func (p program) launched(flags ...string) program {
	p.flags = append(p.flags, flags...)
	return p
}

// job is a bash script with arguments.
func job(name, file string, args ...string) program {
	return program{name: name, needs: []string{"bash"}, args: func(tr *trial) []string {
		return append([]string{"bash", tr.suite.source(file)}, args...)
	}}
}

// server is a bash script that starts a server on the port that it is given.
func server(name, file string, needs ...string) program {
	return program{name: name, needs: append([]string{"bash"}, needs...), args: func(tr *trial) []string {
		return []string{"bash", tr.suite.source(file), fmt.Sprint(freePort(tr))}
	}}
}

// Ports for tests are below those that the kernel gives out by itself.
const firstPort, portCount = 21000, 9000

var lastPort atomic.Int32

// manyPorts returns the first of n ports that no other test is given.
func manyPorts(n int32) int { return firstPort + int(lastPort.Add(n)-n+1)%portCount }

// freePort returns a port of loopback that no other test is given.
func freePort(tr *trial) int {
	tr.Helper()
	for range portCount {
		port := manyPorts(1)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	tr.Fatal("no port is free")
	return 0
}

// gnuParallel is 100 tasks, again and again.
func gnuParallel() program {
	p := script("GNU parallel", "parallel.sh", "bash").with(30).wants("parallel")
	p.progress = func(tr *trial) int64 { return fileSize(tr, "done") } // a byte a task
	return p
}

const mpiPorts = 32 // for the ranks of one job

// mpi is a ring of four ranks.
func mpi(kind string, flags ...string) program {
	return program{
		name:   "MPI, " + kind,
		needs:  []string{"mpirun." + kind, "mpicc." + kind},
		stride: 20,
		args: func(tr *trial) []string {
			tr.env = append(tr.env, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
			// By themselves all jobs listen at the first free ports from 1024 on, and
			// one that starts takes those of one that is to be restarted.
			first := fmt.Sprint(manyPorts(mpiPorts))
			for _, family := range []string{"v4", "v6"} {
				tr.env = append(tr.env, "OMPI_MCA_btl_tcp_port_min_"+family+"="+first,
					"OMPI_MCA_btl_tcp_port_range_"+family+"="+fmt.Sprint(mpiPorts))
			}
			command := append([]string{"mpirun." + kind}, flags...)
			return append(command, "-n", "4", tr.suite.fixture("ring."+kind))
		},
	}
}

// gnuScreen is a session of screen with a shell, whose keys come from outside.
func gnuScreen() program {
	return program{
		name:  "screen",
		needs: []string{"screen", "bash"},
		args: func(tr *trial) []string {
			tr.mkdir("screens")
			if o := tr.exec("chmod", "700", tr.path("screens")); o.code != 0 {
				tr.Fatal(o)
			}
			tr.env = append(tr.env, "SCREENDIR="+tr.path("screens"))
			return []string{"screen", "-D", "-m", "-S", "it", "bash", "--norc", "--noprofile"}
		},
		drive: func(tr *trial, turn int) {
			tr.await("the session", func() bool { return tr.exec("screen", "-S", "it", "-X", "version").code == 0 })
			if turn == 0 {
				typeInScreen(tr, "n=0")
			}
			typeInScreen(tr, fmt.Sprintf("n=$((n + %d)); echo $n >>turns", turn))
			tr.await("the shell's answer", func() bool { return strings.Count(tr.read("turns"), "\n") == turn+1 })
		},
		finish: func(tr *trial) {
			lines := strings.Fields(tr.read("turns"))
			if n := len(lines) - 1; lines[n] != fmt.Sprint(n*(n+1)/2) {
				tr.Errorf("the shell counts %s", lines)
			}
			typeInScreen(tr, "exit")
			tr.ends(tr.front, 0)
		},
	}
}

// typeInScreen types a line into the only window.
func typeInScreen(tr *trial, line string) {
	tr.Helper()
	// screen takes $ for a variable and \ for an escape of its own.
	if o := tr.exec("screen", "-S", "it", "-p", "0", "-X", "stuff", strings.ReplaceAll(line, "$", `\$`)+"\n"); o.code != 0 {
		tr.Fatalf("screen -X stuff: %s", o)
	}
}
