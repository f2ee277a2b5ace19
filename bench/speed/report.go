package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// median of what f says of each round.
func (r result) median(f func(round) float64) float64 {
	var v []float64
	for _, one := range r.rounds {
		v = append(v, f(one))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func (r result) pauseRatio() float64 {
	return r.median(func(o round) float64 { return o.pause / o.raw.Fork })
}

func (r result) commitRatio() float64 {
	return r.median(func(o round) float64 {
		if r.where == "disk" {
			return o.raw.Sync2 / o.commit
		}
		return o.raw.Write2 / o.commit
	})
}

func (r result) restartRatio() float64 {
	return r.median(func(o round) float64 { return o.raw.Read2 / o.first })
}

func (r result) ms(f func(round) float64) string { return fmt.Sprintf("%.1f", 1000*r.median(f)) }

func (r result) size(f func(round) float64) string { return humanize.IBytes(uint64(r.median(f))) }

// row is the line of a case in the table.
func (r result) row() string {
	return fmt.Sprintf("| %s | %s | %.2f | %s | %.2f | %s | %.2f | %s | %s | %.2f |\n", r.name(),
		r.ms(func(o round) float64 { return o.pause }), r.pauseRatio(),
		r.ms(func(o round) float64 { return o.commit }), r.commitRatio(),
		r.ms(func(o round) float64 { return o.first }), r.restartRatio(),
		r.size(func(o round) float64 { return o.bytes }), r.size(func(o round) float64 { return o.agent }),
		r.median(func(o round) float64 { return o.slowdown }))
}

// renderIncremental sets generations that store what has changed beside those that
// store all.
func renderIncremental(results []result) string {
	var b strings.Builder
	for _, r := range results {
		if r.mode != "incremental" {
			continue
		}
		if b.Len() == 0 {
			fmt.Fprintf(&b, "\n| %.0f %% changed | Full, ms | Incremental, ms | Ratio | Size, ratio |\n|---|--:|--:|--:|--:|\n", 100*dirtyShare)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %.3f |\n", r.name(),
			r.ms(func(o round) float64 { return o.full.commit }), r.ms(func(o round) float64 { return o.commit }),
			r.median(func(o round) float64 { return o.commit / o.full.commit }),
			r.median(func(o round) float64 { return o.bytes / o.full.bytes }))
	}
	return b.String()
}

func render(results []result, calls []callCost) string {
	var b strings.Builder
	var u unix.Utsname
	_ = unix.Uname(&u)
	user := "as an ordinary user"
	if os.Geteuid() == 0 {
		user = "as root"
	}
	fmt.Fprintf(&b, "Linux %s, %s, %d processors, %s, %s.\n\n", unix.ByteSliceToString(u.Release[:]), runtime.GOARCH,
		runtime.NumCPU(), user, time.Now().Format(time.DateOnly))
	if len(results) > 0 {
		b.WriteString("| Case | Pause, ms | × fork | Commit, ms | raw ÷ | First step, ms | raw ÷ | Image | Agent | Steps |\n")
		b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	}
	for _, r := range results {
		b.WriteString(r.row())
	}
	b.WriteString(renderIncremental(results))
	if len(calls) > 0 {
		b.WriteString("\n| Call | Alone, ns | Below launch, ns | Ratio |\n|---|--:|--:|--:|\n")
	}
	for _, c := range calls {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.3f |\n", c.name, c.native, c.with, c.with/c.native)
	}
	return b.String()
}
