package main

import (
	"fmt"
	"slices"
	"strings"
)

// subject is one program and one way to keep it.
type subject struct {
	mib       int
	pages     string // 4k, huge
	data      string // random, text, zero
	dirty     int    // MiB a second
	threads   int
	processes int
	where     string // tmpfs, disk
	compress  string
	mode      string // "", again (not the first checkpoint since a restart), no-snapshot, incremental, lazy
}

func (c subject) name() string {
	size := fmt.Sprintf("%dMiB", c.mib)
	if c.mib%1024 == 0 {
		size = fmt.Sprintf("%dGiB", c.mib/1024)
	}
	parts := []string{size, c.pages, c.data, c.where}
	if c.compress != "none" {
		parts = append(parts, c.compress)
	}
	if c.dirty > 0 {
		parts = append(parts, fmt.Sprintf("dirty%d", c.dirty))
	}
	if c.threads > 1 {
		parts = append(parts, fmt.Sprintf("%dthreads", c.threads))
	}
	if c.processes > 1 {
		parts = append(parts, fmt.Sprintf("%dprocesses", c.processes))
	}
	if c.mode != "" {
		parts = append(parts, c.mode)
	}
	return strings.Join(parts, "/")
}

// cases lists the usual ones, then what -full adds.
func cases(o options) []subject {
	plain := func(mib int) subject {
		return subject{mib: mib, pages: "4k", data: "random", threads: 1, processes: 1, where: "tmpfs", compress: "none"}
	}
	vary := func(mib int, f func(*subject)) subject {
		c := plain(mib)
		f(&c)
		return c
	}
	again := func(c *subject) { c.mode = "again" }
	list := []subject{plain(10), vary(10, again), plain(256), vary(256, again), plain(1024), vary(1024, again)}
	list = append(list,
		vary(1024, func(c *subject) { c.where = "disk" }),
		vary(1024, func(c *subject) { c.pages = "huge" }),
		vary(1024, func(c *subject) { c.dirty, c.threads = 200, 2 }),
		vary(1024, func(c *subject) { c.threads = 16 }),
		vary(256, func(c *subject) { c.mode = "lazy" }),
		vary(1024, func(c *subject) { c.mode = "lazy" }),
		vary(1024, func(c *subject) { c.mode, c.dirty = "incremental", 0 }),
		vary(256, func(c *subject) { c.processes = 100 }),
	)
	for _, compress := range []string{"auto", "s2", "lz4", "zstd"} {
		list = append(list, vary(256, func(c *subject) { c.data, c.compress = "text", compress }))
	}
	if !o.full {
		return list
	}
	list = append(list, plain(4096), vary(256, func(c *subject) { c.processes = 1000 }))
	for _, mib := range []int{256, 1024, 4096} {
		for _, where := range []string{"tmpfs", "disk"} {
			for _, pages := range []string{"4k", "huge"} {
				list = append(list, vary(mib, func(c *subject) { c.where, c.pages = where, pages }))
			}
		}
		list = append(list,
			vary(mib, func(c *subject) { c.data = "text" }),
			vary(mib, func(c *subject) { c.data = "zero" }),
			vary(mib, func(c *subject) { c.mode = "no-snapshot" }),
			vary(mib, func(c *subject) { c.mode = "lazy" }),
			vary(mib, func(c *subject) { c.dirty, c.threads = 200, 16 }),
		)
	}
	for _, data := range []string{"random", "text", "zero"} {
		for _, compress := range []string{"auto", "s2", "lz4", "zstd"} {
			for _, where := range []string{"tmpfs", "disk"} {
				list = append(list, vary(1024, func(c *subject) { c.data, c.compress, c.where = data, compress, where }))
			}
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(c subject) bool {
		again := seen[c.name()]
		seen[c.name()] = true
		return again
	})
}

func (c subject) launchFlags() []string {
	flags := []string{"--compress", c.compress}
	switch c.mode {
	case "no-snapshot", "incremental":
		flags = append(flags, "--"+c.mode)
	}
	return flags
}

func (c subject) restartFlags() []string {
	if c.mode == "lazy" {
		return []string{"--lazy"}
	}
	return nil
}

func (c subject) args(stats string) []string {
	return []string{fmt.Sprint(c.mib), c.pages, c.data, fmt.Sprint(c.dirty), fmt.Sprint(c.threads), fmt.Sprint(c.processes), stats}
}
