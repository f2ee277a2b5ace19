package image

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// Verify reads a generation whole and compares everything with its sums: the
// manifest, each image.hia, each extent, and so the generations that it builds
// on. It returns what it has read. progress, unless it is nil, gets the
// bytes of stripes done and of all; one goroutine calls it at a time, with done
// growing.
func Verify(ctx context.Context, genDir string, progress func(done, total int64)) ([]CodecStats, error) {
	m, err := ReadManifest(genDir)
	if err != nil {
		return nil, err
	}
	var stats codecStats
	var readers []*Reader
	var done, total int64
	for _, a := range m.Agents {
		r, err := OpenAgent(genDir, m, a)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		readers = append(readers, r)
		for _, x := range r.chain() {
			total += x.stored()
		}
	}
	for i, r := range readers {
		var report func(int64, int64)
		last := int64(0)
		if progress != nil {
			report = func(n, _ int64) { last = n; progress(done+n, total) }
		}
		if err := r.VerifyPages(ctx, report); err != nil {
			return nil, fmt.Errorf("agent %q: %w", m.Agents[i].ID, err)
		}
		done += last
		for _, x := range r.chain() {
			stats.add(x.extents)
		}
	}
	return stats.list(), nil
}

// Report is what Inspect tells of a generation.
type Report struct {
	Path     string        `json:"path"`
	Manifest *Manifest     `json:"manifest"`
	Agents   []AgentReport `json:"agents"` // in the manifest's order
}

// AgentReport is the image of one agent.
type AgentReport struct {
	ID       string          `json:"id"`
	Header   Header          `json:"header"`
	Sections []SectionReport `json:"sections"`
	Chain    []ChainReport   `json:"chain"`  // this generation, and those it builds on
	Memory   SpaceStats      `json:"memory"` // of all spaces
	Codecs   []CodecStats    `json:"codecs"` // those that are used
	Spaces   []SpaceReport   `json:"spaces"`
}

// ChainReport tells what one generation has of the memory of another.
type ChainReport struct {
	Generation uint64 `json:"generation"`
	Stored     int64  `json:"stored"` // bytes in its stripes
	Bytes      int64  `json:"bytes"`  // of memory that comes from there
}

// CodecStats are the sums over the extents of a codec.
type CodecStats struct {
	Codec   string `json:"codec"`
	Extents int    `json:"extents"`
	Bytes   int64  `json:"bytes"`  // of memory
	Stored  int64  `json:"stored"` // bytes in the stripes
}

// codecStats has the sums by codec.
type codecStats [codecs]CodecStats

func (s *codecStats) add(extents []Extent) {
	for i := range extents {
		e := &extents[i]
		c := &s[e.Codec]
		c.Extents++
		c.Bytes += int64(e.Len)
		c.Stored += int64(e.Stored)
	}
}

// list returns the codecs that are used to store memory.
func (s *codecStats) list() []CodecStats {
	list := []CodecStats{}
	for i, c := range s {
		if c.Extents > 0 && Codec(i) != Inherited {
			c.Codec = Codec(i).String()
			list = append(list, c)
		}
	}
	return list
}

// SectionReport is one section with its payload.
type SectionReport struct {
	Name    string          `json:"name"`
	Version uint16          `json:"version"`
	Size    int64           `json:"size"` // bytes of the payload
	Data    json.RawMessage `json:"data"` // null where the payload is not JSON
}

// SpaceReport is the memory of one process or shared object.
type SpaceReport struct {
	Space uint32 `json:"space"`
	SpaceStats
}

// SpaceStats are the sums over extents.
type SpaceStats struct {
	Extents    int   `json:"extents"`    // in this generation
	Compressed int   `json:"compressed"` // extents
	Bytes      int64 `json:"bytes"`      // of memory in this generation
	Inherited  int64 `json:"inherited"`  // bytes of memory in those before
	Stored     int64 `json:"stored"`     // bytes in the stripes
}

func (s *SpaceStats) add(p *Piece) {
	if p.Image > 0 {
		s.Inherited += p.live()
		return
	}
	e := &p.Extent
	s.Extents++
	if e.Codec != Raw {
		s.Compressed++
	}
	s.Bytes += int64(e.Len)
	s.Stored += int64(e.Stored)
}

// Inspect describes a generation. It checks all that ReadManifest and Open do,
// and leaves the content of memory unread.
func Inspect(genDir string) (*Report, error) {
	m, err := ReadManifest(genDir)
	if err != nil {
		return nil, err
	}
	report := &Report{Path: genDir, Manifest: m}
	for _, a := range m.Agents {
		r, err := OpenAgent(genDir, m, a)
		if err != nil {
			return nil, err
		}
		report.Agents = append(report.Agents, inspectAgent(a.ID, r))
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return report, nil
}

func inspectAgent(id string, r *Reader) AgentReport {
	report := AgentReport{ID: id, Header: r.header, Sections: []SectionReport{}, Spaces: []SpaceReport{}}
	for _, s := range r.sections {
		section := SectionReport{Name: s.Name, Version: s.Version, Size: s.Size}
		if json.Valid(s.payload) {
			section.Data = s.payload
		}
		report.Sections = append(report.Sections, section)
	}
	for _, x := range r.chain() {
		report.Chain = append(report.Chain, ChainReport{Generation: x.generation, Stored: x.stored()})
	}
	pieces := r.Pieces()
	slices.SortStableFunc(pieces, func(a, b Piece) int { return cmp.Compare(a.Space, b.Space) })
	for i := range pieces {
		p := &pieces[i]
		if n := len(report.Spaces); n == 0 || report.Spaces[n-1].Space != p.Space {
			report.Spaces = append(report.Spaces, SpaceReport{Space: p.Space})
		}
		report.Spaces[len(report.Spaces)-1].add(p)
		report.Memory.add(p)
		report.Chain[p.Image].Bytes += p.live()
	}
	var stats codecStats
	stats.add(r.extents)
	report.Codecs = stats.list()
	return report
}
