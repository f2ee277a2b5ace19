package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// stoppedOrphaned ends the agent at each step of a checkpoint of processes that are
// stopped: they stay so, and their parents may have them go on.
func stoppedOrphaned(f *faulted) {
	o := readObject(f.T, "../objects/engine/stopped.c")
	binary := f.suite.buildObject(f.T, o)
	f.launchStopped(o, binary)
	f.write("trace", "")
	f.order("trace: " + f.path("trace"))
	f.checkpoint()
	met := map[string]int{}
	for line := range strings.Lines(f.read("trace")) {
		met[strings.TrimSpace(line)]++
	}
	f.endStopped()
	f.ends(f.front, 0)

	r := rand.New(rand.NewSource(int64(f.id.uid)))
	var steps []string
	for _, step := range faultpoint.OfCheckpoint() {
		if met[string(step)] > 0 {
			steps = append(steps, string(step))
		}
	}
	for _, step := range append(faultpoint.OfInjection(), faultpoint.ThreadSeized, faultpoint.ThreadStopped, faultpoint.Releasing) {
		for range 3 {
			steps = append(steps, fmt.Sprintf("%s#%d", step, 1+r.Intn(met[string(step)])))
		}
	}
	for _, step := range steps {
		f.launchStopped(o, binary)
		f.order(step + ": kill")
		f.hiatus("checkpoint", f.name)
		f.orphaned()
		f.pass(1)
		f.endStopped()
		if f.Failed() {
			f.Fatalf("at the step %q", step)
		}
	}
}

func (f *faulted) launchStopped(o object, binary string) {
	f.Helper()
	for _, name := range []string{"go", "stop", "progress"} {
		_ = os.Remove(f.path(name))
	}
	f.front = f.run("launch", "--name", f.name, "--ckptdir", f.images(), "--", binary)
	f.reach(1)
}

// endStopped has the program make its last checks, and end.
func (f *faulted) endStopped() {
	f.Helper()
	f.write("stop", "")
	f.nothingLeft()
	if text := f.read("failed"); text != "" {
		f.Fatalf("the program failed: %s", text)
	}
	if out := f.read("stdout"); !strings.HasSuffix(out, "ok\n") {
		f.Errorf("the program did not print ok, but %q", out)
	}
}

// agentKilledBetweenStops ends the agent while some threads of a program stand still, that
// wait in calls of all kinds: none of them shows EINTR.
func agentKilledBetweenStops(f *faulted) {
	f.exe = f.suite.fixture("sleeps")
	f.launchFaulty()
	f.write("trace", "")
	f.order("trace: " + f.path("trace"))
	f.checkpoint()
	const apart = 3
	for n := strings.Count(f.read("trace"), string(faultpoint.ThreadStopped)+"\n"); n > 0; n -= apart {
		f.agentKilledAt(fmt.Sprintf("%s#%d", faultpoint.ThreadStopped, n), false)
	}
	f.endWell()
}

// foldersOfFailedRestart has a restart fail that has made the folders of a file again: they go.
func foldersOfFailedRestart(f *faulted) {
	const program = `mkdir -p made/twice; exec 5>made/twice/file; echo 1 >progress; while :; do sleep 0.02; done`
	f.front = f.run("launch", "--name", f.name, "--ckptdir", f.images(), "--ckpt-open-files", "--", "sh", "-c", program)
	f.reach(1)
	f.suspend()
	if err := os.RemoveAll(f.path("made")); err != nil {
		f.Fatal(err)
	}
	for _, step := range []faultpoint.Step{faultpoint.RestartMemory, faultpoint.RestartFinished} {
		f.order(string(step) + ": error ENOMEM")
		if o := f.hiatus("restart", f.images(), "--allow-changed-files"); o.code != 99 {
			f.Errorf("%s: restart: %s: want exit code 99", step, o)
		}
		if _, err := os.Lstat(f.path("made")); !errors.Is(err, fs.ErrNotExist) {
			f.Errorf("%s: the folder is there: %v", step, err)
		}
	}
	f.order()
	f.restarting()
	f.running()
	if _, err := os.Lstat(f.path("made/twice/file")); err != nil {
		f.Error(err)
	}
	f.signal(syscall.SIGTERM)
	f.wait(f.front)
	f.gone()
}

// timeoutsInRestart has a restart take longer than the program's sleeps may be late.
func timeoutsInRestart(f *faulted) {
	f.exe = f.suite.fixture("sleeps")
	f.launchFaulty()
	f.suspend()
	fifo := f.fifo()
	f.order(fmt.Sprintf("%s: wait %s", faultpoint.RestartTree, fifo))
	f.restarting("--namespaces", "always")
	w := f.meet(fifo)
	time.Sleep(3 * time.Second) // what is tested
	w.Close()
	f.running()
	f.endWell()
}
