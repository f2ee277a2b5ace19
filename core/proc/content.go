package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hiatus-project/hiatus/plugin"
)

// Content is data of a plugin, too large for its state.
type Content struct {
	Owner string
	plugin.Content
}

// ContentState is a Content in the image.
type ContentState struct {
	Owner  string `json:"owner"`
	Object int    `json:"object"`
	Size   int64  `json:"size"`
	Space  uint32 `json:"space"`
}

// ContentTarget asks the plugin owner where the content of its object goes.
type ContentTarget func(ctx context.Context, owner string, object int, size int64) (io.WriterAt, error)

// SetContents notes the data of plugins, each with a space of its own.
func (st *State) SetContents(contents []Content) {
	st.Contents = nil
	for i, c := range contents {
		st.Contents = append(st.Contents, ContentState{c.Owner, c.Object, c.Size, st.contentSpace(i)})
	}
}

// contentSpace numbers the spaces of contents behind those of processes, of
// shared memory and of programs.
func (st *State) contentSpace(i int) uint32 {
	return uint32(len(st.Processes) + len(st.Objects) + len(st.Exes) + i)
}

func (st *State) validateContents() error {
	type key struct {
		owner  string
		object int
	}
	seen := map[key]bool{}
	for i, c := range st.Contents {
		k := key{c.Owner, c.Object}
		if c.Owner == "" || c.Object < 0 || c.Size < 0 || c.Space != st.contentSpace(i) || seen[k] {
			return fmt.Errorf("content %d of %.100q: size %d, space %d, or it stands twice", c.Object, c.Owner, c.Size, c.Space)
		}
		seen[k] = true
	}
	return nil
}

// contentRuns lists the pages that hold the data.
func contentRuns(st *State, contents []Content) (runs []pageRun) {
	page := int64(os.Getpagesize())
	for i, c := range contents {
		end := int64(0)
		for _, r := range c.Data {
			start := max(end, r.Start&^(page-1))
			end = max(end, (min(r.End, c.Size)+page-1)&^(page-1))
			for start < end {
				n := min(end-start, chunkSize)
				runs = append(runs, pageRun{from: c.From, addr: uint64(start), len: uint64(n), space: st.contentSpace(i), key: uint64(start), dense: true})
				start += n
			}
		}
	}
	return runs
}

// readContent fills b; what is behind the end of the data are zeros.
func readContent(from io.ReaderAt, b []byte, at uint64) error {
	n, err := from.ReadAt(b, int64(at))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read of a file's content: %w", err)
	}
	clear(b[n:])
	return nil
}

// sizedWriter leaves out the zeros that fill the last page of a content.
type sizedWriter struct {
	to   io.WriterAt
	size int64
}

func (w sizedWriter) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= w.size {
		return 0, fmt.Errorf("it ends at %d", w.size)
	}
	if _, err := w.to.WriteAt(b[:min(int64(len(b)), w.size-at)], at); err != nil {
		return 0, err
	}
	return len(b), nil
}

// openContents asks the plugins for the targets of all contents, by space.
func (m *memoryRestorer) openContents(ctx context.Context, target ContentTarget) error {
	m.contents = map[uint32]io.WriterAt{}
	for _, c := range m.st.Contents {
		w, err := target(ctx, c.Owner, c.Object, c.Size)
		if err != nil {
			return err
		}
		m.contents[c.Space] = sizedWriter{w, c.Size}
	}
	return nil
}
