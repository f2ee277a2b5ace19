// Command speed measures what a checkpoint and a restart cost, each beside a
// program in C that does the same to its own memory in the same round: fork(2)
// for the pause, pwrite(2) to two files for the checkpoint, pread(2) by two
// threads for the restart. Ratios hold on a noisy machine where times do not.
//
//	go run ./bench/speed            the usual cases, a few minutes
//	go run ./bench/speed -full      every case of docs/performance.md
//	go run ./bench/speed -run 1GiB  cases whose name matches
//
// It needs gcc, twice the memory of the largest case, and for tmpfs as much room.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	rounds      int
	full        bool
	only        *regexp.Regexp
	hiatus      string
	tmpfs, disk string
	markdown    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	o, err := parse()
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "speed:", err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	var only string
	flag.IntVar(&o.rounds, "rounds", 3, "`rounds` of each case; medians are shown")
	flag.BoolVar(&o.full, "full", false, "every case, not the usual ones only")
	flag.StringVar(&only, "run", "", "only cases whose name matches this `regexp`")
	flag.StringVar(&o.hiatus, "hiatus", "", "the `program` to measure (default: built from this folder's module)")
	flag.StringVar(&o.tmpfs, "tmpfs", "/dev/shm", "a `folder` of a tmpfs")
	flag.StringVar(&o.disk, "disk", os.TempDir(), "a `folder` on a disk")
	flag.StringVar(&o.markdown, "markdown", "", "write the tables to this `file` too")
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.rounds < 1 {
		return o, errors.New("-rounds must be 1 or more")
	}
	var err error
	o.only, err = regexp.Compile(only)
	return o, err
}

func run(ctx context.Context, o options) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	var results []result
	for _, c := range cases(o) {
		if !o.only.MatchString(c.name()) {
			continue
		}
		fmt.Fprintln(os.Stderr, c.name())
		r, err := b.measure(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		fmt.Fprint(os.Stderr, r.row()) // what is measured is not lost when a later case is ended
		results = append(results, r)
	}
	var calls []callCost
	if o.only.MatchString("launch") {
		if calls, err = b.callCosts(ctx); err != nil {
			return err
		}
	}
	report := render(results, calls)
	fmt.Print(report)
	if o.markdown == "" {
		return nil
	}
	return os.WriteFile(o.markdown, []byte(report), 0o644)
}

// bench holds the programs and folders of a run.
type bench struct {
	options
	tmp string // programs
	n   int    // cases so far
}

// settling is what makes the programs old enough for their times to tell later changes. Younger ones are
// read anew at each checkpoint, which users' programs are not.
const settling = 3 * time.Second

func newBench(ctx context.Context, o options) (*bench, error) {
	tmp, err := os.MkdirTemp("", "hiatus-speed-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, tmp: tmp}
	if err := b.build(ctx); err != nil {
		b.close()
		return nil, err
	}
	select {
	case <-time.After(settling):
	case <-ctx.Done():
	}
	return b, nil
}

func (b *bench) close() { os.RemoveAll(b.tmp) }

func (b *bench) program(name string) string { return filepath.Join(b.tmp, name) }

func (b *bench) build(ctx context.Context) error {
	_, file, _, _ := runtime.Caller(0)
	module := filepath.Join(filepath.Dir(file), "../..")
	for _, name := range []string{"raw", "subject", "calls"} {
		if _, err := output(exec.CommandContext(ctx, "gcc", "-O2", "-pthread", "-o", b.program(name), filepath.Join(module, "bench/speed/programs", name+".c"))); err != nil {
			return err
		}
	}
	if b.hiatus != "" {
		return nil
	}
	b.hiatus = b.program("hiatus")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.hiatus, "./cmd/hiatus")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	_, err := output(cmd)
	return err
}

// output runs cmd; its error shows what it printed there.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return out, nil
}
