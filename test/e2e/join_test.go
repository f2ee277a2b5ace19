package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hiatus-project/hiatus/core/coord"
)

// joinTests show computations of several launches.
var joinTests = map[string]func(*trial){
	"generations":      showJoined,
	"agent-dies":       showAgentDies,
	"coordinator-dies": showCoordinatorDies,
	"first-ends":       showFirstEnds,
	"restart-fails":    showJoinedRestartFails,
	"named-memory":     showJoinedMemory,
	"kill":             showJoinedKill,
}

// TestJoin shows computations of several launches, as root and as an ordinary
// user.
func TestJoin(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end tests take minutes")
	}
	s := newBareSuite(t)
	for name, show := range joinTests {
		for _, id := range s.identities {
			t.Run(name+"/"+id.name, func(t *testing.T) {
				t.Parallel()
				s.require(t, "python3")
				show(s.newTrial(t, id))
			})
		}
	}
}

// stepper counts in the file that it has the name of, and checks its id. Told to hold, it
// stays in vfork(2) until somebody opens a FIFO, so that it cannot be frozen.
const stepper = `import os, sys, time
os.chdir(os.environ["HT_DIR"])
name, pid, step = sys.argv[1], os.getpid(), 0
while not os.path.exists("stop") and not os.path.exists("stop-" + name):
    if os.getpid() != pid:
        open("failed", "w").write("%s: pid %d was %d" % (name, os.getpid(), pid))
    step += 1
    with open(name + ".new", "w") as f:
        f.write("%d %d" % (step, pid))
    os.rename(name + ".new", name)
    if os.path.exists("hold-" + name):
        os.remove("hold-" + name)
        os.mkfifo("hold")
        os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "hold", os.O_RDONLY, 0)]), 0)
    time.sleep(0.02)
print("ok", flush=True)
sys.exit(int(name == "two") * 7)
`

// launchJoined starts the steppers one, two, ... in one computation.
func (tr *trial) launchJoined(names ...string) (fronts []*front) {
	tr.Helper()
	tr.write("stepper.py", stepper)
	for i, name := range names {
		if i == 0 {
			tr.launch("python3", tr.path("stepper.py"), name)
			fronts = append(fronts, tr.front)
		} else {
			fronts = append(fronts, tr.start("launch", "--join", tr.name, "--", "python3", tr.path("stepper.py"), name))
		}
		tr.steps(1, name)
	}
	return fronts
}

// stepOf returns the step and the process id of a stepper.
func (tr *trial) stepOf(name string) (step int64, pid int) {
	words := strings.Fields(tr.read(name))
	if len(words) == 2 {
		step, _ = strconv.ParseInt(words[0], 10, 64)
		pid, _ = strconv.Atoi(words[1])
	}
	return step, pid
}

// steps waits until each has made so many steps more.
func (tr *trial) steps(n int64, names ...string) {
	tr.Helper()
	from := map[string]int64{}
	for _, name := range names {
		from[name], _ = tr.stepOf(name)
	}
	for _, name := range names {
		tr.await(fmt.Sprintf("step %d of %s", from[name]+n, name), func() bool {
			step, _ := tr.stepOf(name)
			return step >= from[name]+n
		})
	}
}

func (tr *trial) status() (s coord.Status) {
	tr.Helper()
	if err := json.Unmarshal([]byte(tr.must("status", tr.name, "--json")), &s); err != nil {
		tr.Fatal(err)
	}
	return s
}

// members waits until the computation has n agents.
func (tr *trial) members(n int) coord.Status {
	tr.Helper()
	var s coord.Status
	tr.await(fmt.Sprintf("%d agents", n), func() bool {
		o := tr.hiatus("status", tr.name, "--json")
		s = coord.Status{}
		return o.code == 0 && json.Unmarshal([]byte(o.stdout), &s) == nil && len(s.Agents) == n
	})
	return s
}

func showJoined(tr *trial) {
	fronts := tr.launchJoined("one", "two")
	tr.must("interval", tr.name, "1h")
	for range 2 {
		if s := tr.members(2); s.Interval != time.Hour || len(s.Agents[0].Processes) != 1 || len(s.Agents[1].Processes) != 1 {
			tr.Errorf("status %+v", s)
		}
		if list := tr.must("list"); strings.Count(list, "\n") != 2 {
			tr.Errorf("more than one computation is listed: %s", list)
		}
		tr.must("check", tr.name)
		tr.checkpoint()
		tr.steps(2, "one", "two")
		tr.must("checkpoint", tr.name, "--kill")
		for _, f := range fronts {
			tr.wait(f)
		}
		tr.gone()
		tr.must("verify", tr.images())
		tr.restart()
		fronts = []*front{tr.front}
		tr.steps(2, "one", "two")
	}
	tr.write("stop-one", "") // the other runs on, and so does the command
	tr.members(1)
	tr.steps(2, "two")
	if tr.front.hasEnded() {
		tr.Error("restart did not wait for the second")
	}
	tr.finish()
}

// frozen waits until a process stands in a ptrace stop.
func (tr *trial) frozen(pid int) {
	tr.Helper()
	tr.inState(pid, "t")
}

// inState waits until a process is in a state of proc_pid_stat(5).
func (tr *trial) inState(pid int, state string) {
	tr.Helper()
	tr.await(fmt.Sprintf("%d in state %s", pid, state), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			tr.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(rest, state)
	})
}

func (tr *trial) send(f *front, sig syscall.Signal) {
	tr.Helper()
	if err := f.cmd.Process.Signal(sig); err != nil {
		tr.Fatal(err)
	}
}

// showAgentDies: the second dies while its program is frozen; the third keeps
// the others waiting until then.
func showAgentDies(tr *trial) {
	fronts := tr.launchJoined("one", "two", "three")
	tr.write("hold-three", "")
	_, third := tr.stepOf("three")
	tr.inState(third, "D")
	checkpoint := tr.start("checkpoint", tr.name)
	for _, name := range []string{"one", "two"} {
		_, pid := tr.stepOf(name)
		tr.frozen(pid)
	}
	tr.send(fronts[1], syscall.SIGKILL)
	tr.wait(fronts[1])
	tr.steps(2, "one", "two")
	hold, err := os.OpenFile(tr.path("hold"), os.O_WRONLY, 0)
	if err != nil {
		tr.Fatal(err)
	}
	hold.Close()
	if code := tr.wait(checkpoint); code != 1 || !strings.Contains(tr.read("stderr"), "given up: agent 1: connection lost") {
		tr.Errorf("exit code %d: %s", code, tr.read("stderr"))
	}
	tr.steps(2, "one", "two", "three")
	if left := tr.generations(); len(left) > 0 {
		tr.Errorf("committed: %v", left)
	}
	tr.members(2)
	tr.checkpoint()
	tr.steps(2, "one", "two", "three")
	tr.write("stop", "")
	tr.ends(fronts[0], 0)
	tr.ends(fronts[2], 0)
	tr.gone()
}

// showCoordinatorDies: another agent takes its place, with its settings.
func showCoordinatorDies(tr *trial) {
	fronts := tr.launchJoined("one", "two", "three")
	tr.must("interval", tr.name, "2h")
	tr.checkpoint()
	was := tr.status()
	tr.send(fronts[0], syscall.SIGKILL)
	tr.wait(fronts[0])
	tr.front = fronts[2]
	s := tr.members(2)
	if s.Computation != was.Computation || s.Dir != was.Dir || s.Interval != was.Interval || s.Generation != 1 {
		tr.Errorf("status %+v, was %+v", s, was)
	}
	tr.steps(2, "one", "two", "three")
	tr.must("checkpoint", tr.name, "--kill")
	tr.ends(fronts[1], 128+9)
	tr.ends(fronts[2], 128+9)
	step, _ := tr.stepOf("two")
	tr.write("stop-one", "") // nobody's
	tr.gone()
	tr.restart()
	tr.steps(2, "two", "three")
	if now, _ := tr.stepOf("two"); now <= step {
		tr.Errorf("step %d came behind %d", now, step)
	}
	tr.write("stop", "")
	tr.ends(tr.front, 7) // as the first of those that there are
	tr.gone()
}

// showFirstEnds: the launch that was first ends with its program, and the
// computation goes on.
func showFirstEnds(tr *trial) {
	fronts := tr.launchJoined("one", "two")
	tr.write("stop-one", "")
	tr.ends(fronts[0], 0)
	tr.front = fronts[1]
	tr.members(1)
	tr.checkpoint()
	fronts = append(fronts, tr.start("launch", "--join", tr.name, "--", "python3", tr.path("stepper.py"), "three"))
	tr.steps(2, "two", "three")
	tr.must("checkpoint", tr.name, "--kill")
	tr.wait(fronts[1])
	tr.wait(fronts[2])
	tr.gone()
	tr.restart()
	tr.steps(2, "two", "three")
	tr.write("stop", "")
	tr.wait(tr.front)
	tr.saysOK(tr.front)
	tr.gone()
}

// showJoinedRestartFails: one agent cannot be brought back, so none is.
func showJoinedRestartFails(tr *trial) {
	fronts := tr.launchJoined("one", "two")
	tr.must("checkpoint", tr.name, "--kill")
	for _, f := range fronts {
		tr.wait(f)
	}
	tr.gone()
	pages, err := filepath.Glob(filepath.Join(tr.images(), tr.name, "*", "agent-1", "pages.*"))
	if err != nil || len(pages) == 0 {
		tr.Fatal(pages, err)
	}
	var stripe string
	var whole []byte
	for _, stripe = range pages {
		if whole, err = os.ReadFile(stripe); err != nil {
			tr.Fatal(err)
		}
		if len(whole) > 0 { // one may be empty
			break
		}
	}
	damaged := append([]byte{}, whole...)
	damaged[len(damaged)/2] ^= 1
	for _, content := range [][]byte{damaged, whole} {
		if err := os.WriteFile(stripe, content, 0o600); err != nil {
			tr.Fatal(err)
		}
		steps, _ := tr.stepOf("one")
		tr.restart()
		if string(content) == string(whole) {
			tr.steps(2, "one", "two")
			break
		}
		if code := tr.wait(tr.front); code != 99 || !strings.Contains(tr.read("stderr"), filepath.Base(stripe)) {
			tr.Errorf("exit code %d: %s", code, tr.read("stderr"))
		}
		tr.gone()
		if now, _ := tr.stepOf("one"); now != steps {
			tr.Error("the first has run")
		}
	}
	tr.finish()
}

func showJoinedKill(tr *trial) {
	if o := tr.hiatus("launch", "--join", "nobody", "--", "true"); o.code != 99 || !strings.Contains(o.stderr, "no such computation") {
		tr.Errorf("joined nobody: %s", o)
	}
	fronts := tr.launchJoined("one", "two")
	if o := tr.hiatus("launch", "--join", tr.name, "--disable-plugin", "shm", "--", "true"); o.code != 99 || !strings.Contains(o.stderr, "agents differ") {
		tr.Errorf("joined with other plugins: %s", o)
	}
	if o := tr.hiatus("launch", "--join", tr.name, "--keep", "3", "--", "true"); o.code != 99 || !strings.Contains(o.stderr, "--keep does not go with --join") {
		tr.Errorf("joined with --keep: %s", o)
	}
	tr.steps(1, "one", "two")
	tr.must("kill", tr.name, "--signal", "TERM")
	for _, f := range fronts {
		tr.ends(f, 128+15)
	}
	tr.gone()
}
