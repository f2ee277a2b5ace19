package e2e

// program is something to run under hiatus.
type program struct {
	name  string
	needs []string // commands that must be there
	// args makes what the program needs and returns its command line.
	args func(*trial) []string
	// stride is the progress between two generations; 0: 5 steps. Of what is
	// left running, checkpoints come ten times as often.
	stride int64
	flags  []string // of hiatus launch
	as     string   // the one identity that can run it; "": all
	// Where a program does not keep to the protocol:
	progress func(*trial) int64        // instead of $HT_DIR/progress
	drive    func(tr *trial, turn int) // brings it to its next checkpoint, instead of waiting for progress
	finish   func(*trial)              // instead of the stop file and "ok"
}

// fixture is a program in C, with arguments.
func fixture(name, file string, args ...string) program {
	return program{name: name, needs: []string{"gcc"}, args: func(tr *trial) []string {
		return append([]string{tr.suite.fixture(file)}, args...)
	}}
}

// script is a program in a language, run by a command line.
func script(name, file string, command ...string) program {
	return program{name: name, needs: command[:1], args: func(tr *trial) []string {
		return append(append([]string{}, command...), tr.suite.source(file))
	}}
}

// with returns p with another stride.
func (p program) with(stride int64) program {
	p.stride = stride
	return p
}

// realPrograms are what users run.
func realPrograms() []program {
	return []program{
		script("python3", "python.py", "/usr/bin/python3"),
		script("bash job", "job.sh", "bash"),
		{name: "go", args: func(tr *trial) []string { return []string{tr.suite.fixture("goroutines")} }},
		script("node", "node.js", "node"),
		{name: "java", needs: []string{"java", "javac"}, args: func(tr *trial) []string {
			// Its statistics file would be removed by the next java that
			// starts and does not find the process id alive.
			return []string{"java", "-XX:-UsePerfData", "-Xmx128m", "-cp", tr.suite.fixture("java"), "Threads"}
		}},
		fixture("C threads", "cthreads"),
		fixture("openmp", "openmp"),
		sqlite(),
		archive(),
		makeProject(),
		script("perl", "perl.pl", "perl"),
		script("busybox", "busybox.sh", "busybox", "sh"),
		fixture("200 processes", "many", "processes", "200"),
		fixture("500 threads", "many", "threads", "500"),
		tmux(),
	}
}

// ruleFixtures check one theme of the engine each.
func ruleFixtures() []program {
	return []program{
		// So that generations fall into the long sleeps, a second and more apart.
		fixture("sleeps", "sleeps").with(130),
		fixture("blocked calls", "blocked"),
		fixture("signals", "signals"),
		fixture("threads", "threads"),
		fixture("memory", "memory"),
		fixture("rewritten memory", "rewrite", "20"),
		fixture("self", "self", "one", "", "two words"),
		fixture("tree", "tree"),
		fixture("files", "files"),
		fixture("events", "events"),
		fixture("churn", "churn"),
		fixture("stubborn", "stubborn"),
		fixture("clocks", "clocks"),
	}
}

// strideOf returns the progress between two checkpoints.
func (p program) strideOf(m mode) int64 {
	stride := p.stride
	if stride == 0 {
		stride = 5
	}
	if !m.kill {
		stride = max(1, stride/10)
	}
	return stride
}

// next brings the program to its next checkpoint.
func (p program) next(tr *trial, m mode, turn int) {
	tr.Helper()
	if p.drive != nil {
		p.drive(tr, turn)
		return
	}
	progress := p.progress
	if progress == nil {
		progress = (*trial).progress
	}
	want := progress(tr) + p.strideOf(m)
	tr.await("progress", func() bool { return progress(tr) >= want })
}

// end lets the program come to its end, and checks it.
func (p program) end(tr *trial) {
	tr.Helper()
	if p.finish != nil {
		p.finish(tr)
		return
	}
	tr.finish()
}
