package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/hiatus-project/hiatus/core/image"
)

// forgery is an image as another host or a later version would have made it: whole, with right sums.
type forgery struct {
	name string
	// change changes image.hia, and keeps its length. section is the name of the section whose sum
	// has to be right after it; "header" is the header.
	section string
	change  func(b []byte)
	want    string   // of the refusal
	more    []string // flags with which a restart goes on
}

// elsewhere restarts images of other processors and versions: each is refused for what it is,
// before anything is made.
func elsewhere(tr *trial) {
	tr.launch(tr.suite.fixture("threads"))
	tr.advance(2)
	tr.suspend()
	feature, machine := "sse41", byte(183) // elf(5), EM_AARCH64
	if runtime.GOARCH == "arm64" {
		feature, machine = "crc32", 62
	}
	strange := feature[:len(feature)-1] + "z"
	for i, f := range []forgery{
		{"a feature", "engine", replace(`"`+feature+`"`, `"`+strange+`"`), strange + ", which this one lacks", []string{"--allow-missing-features"}},
		{"a version", "header", func(b []byte) { b[8]++ }, "image format 2, want 1", nil},
		{"a machine", "header", func(b []byte) { b[10] = machine }, "this is " + runtime.GOARCH, nil},
		{"a plugin", "plugin/file", replace("plugin/file", "plugin/fila"), "--ignore-plugin fila", nil},
		{"a plugin's state", "plugin/file", func(b []byte) { b[sectionAt(b, "plugin/file")+2]++ }, "state format 2", nil},
	} {
		images := fmt.Sprintf("%s.%d", tr.images(), i)
		copyImage(tr, tr.images(), images)
		f.make(tr, filepath.Join(images, tr.name, "00001"))
		before := tr.progress()
		o := tr.hiatus("restart", images)
		if o.code != 99 || !strings.Contains(o.stderr, f.want) || strings.Count(strings.TrimSpace(o.stderr), "\n") > 0 {
			tr.Errorf("%s: restart: %s, want 99 and %q in one line", f.name, o, f.want)
		}
		if left := tr.processes(); len(left) > 0 || tr.progress() != before {
			tr.Errorf("%s: something was started", f.name)
		}
		if f.more != nil {
			tr.front = tr.start(append([]string{"restart", images}, f.more...)...)
			tr.advance(1)
			tr.must("kill", tr.name)
			tr.gone()
		}
	}
}

func replace(old, new string) func([]byte) {
	return func(b []byte) { copy(b[bytes.Index(b, []byte(old)):], new) }
}

// make changes the image in the folder of a generation, and has all sums right again.
func (f forgery) make(tr *trial, gen string) {
	tr.Helper()
	files, err := filepath.Glob(filepath.Join(gen, "*", "image.hia"))
	if err != nil || len(files) != 1 {
		tr.Fatalf("the image in %s: %v (%v)", gen, files, err)
	}
	data := []byte(tr.contentOf(files[0]))
	old := tr.sum(data)
	from, to := 0, 40
	if f.section != "header" {
		from = sectionAt(data, f.section)
		to = from + sectionHead + len(f.section) + int(binary.LittleEndian.Uint64(data[from+8:]))
	}
	f.change(data)
	binary.LittleEndian.PutUint64(data[to:], tr.sum(data[from:to]))
	manifest := filepath.Join(gen, "manifest.json")
	text := tr.contentOf(manifest)
	now := strings.Replace(text, fmt.Sprintf("%016x", old), fmt.Sprintf("%016x", tr.sum(data)), 1)
	if now == text {
		tr.Fatalf("%s does not have the sum %016x", manifest, old)
	}
	now = now[:strings.LastIndex(now, `  "xxh3": "`)] // of what comes before it
	now += fmt.Sprintf("  \"xxh3\": \"%016x\"\n}\n", tr.sum([]byte(now)))
	for path, data := range map[string]string{files[0]: string(data), manifest: now} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			tr.Fatal(err)
		}
	}
}

// sectionHead is the length of what stands before the name of a section: see docs/image-format.md.
const sectionHead = 16

func sectionAt(b []byte, name string) int { return bytes.Index(b, []byte(name)) - sectionHead }

// sum is the sum that images have of their parts.
func (tr *trial) sum(b []byte) uint64 {
	tr.Helper()
	f, err := os.CreateTemp("", "ht-sum-")
	if err != nil {
		tr.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		tr.Fatal(err)
	}
	sum, err := image.HashFile(f)
	if err != nil {
		tr.Fatal(err)
	}
	return sum
}
