package image

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/xxh3"
)

const (
	manifestFile   = "manifest.json"
	manifestFormat = 1
	maxManifest    = 64 << 20 // bytes

	maxNameLen     = 64  // bytes of a computation's name
	maxFileNameLen = 255 // NAME_MAX
)

// Manifest describes a generation. It is written by the coordinator, last.
// Strings that are not UTF-8 lose the bytes that are not: they inform only.
type Manifest struct {
	Format      int             `json:"format"`      // set by Commit
	Computation string          `json:"computation"` // id: 32 hexadecimal digits
	Name        string          `json:"name"`        // of the computation
	Generation  uint64          `json:"generation"`
	Created     time.Time       `json:"created"`
	Hiatus      string          `json:"hiatus"` // version of the program
	Command     []string        `json:"command"`
	Cwd         string          `json:"cwd"`
	Uid         int             `json:"uid"`
	Arch        string          `json:"arch"` // as GOARCH
	Kernel      string          `json:"kernel"`
	BootID      string          `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	Settings    Settings        `json:"settings"`
	Agents      []AgentManifest `json:"agents"`
}

// Settings are how the computation is checkpointed: a restart goes on so.
type Settings struct {
	Interval time.Duration `json:"interval_ns"` // between periodic checkpoints; 0: none
	Keep     int           `json:"keep"`        // generations
	Compress string        `json:"compress"`    // as in Options
	// Incremental generations store what has changed, full ones all.
	Incremental bool `json:"incremental,omitempty"`
	FullEvery   int  `json:"full_every,omitempty"` // generations
	Direct      bool `json:"direct,omitempty"`     // as in Options
	// Flags are options of the command by name, that a restart goes on with.
	Flags map[string]string `json:"flags,omitempty"`
}

func (s *Settings) check() string {
	switch {
	case s.Interval < 0:
		return fmt.Sprintf("interval of %d ns", s.Interval)
	case s.FullEvery < 0 || s.FullEvery > MaxChain:
		return fmt.Sprintf("a full image every %d generations", s.FullEvery)
	case s.Keep < 0:
		return fmt.Sprintf("%d generations to keep", s.Keep)
	case s.Compress != "":
		if err := CheckCompression(s.Compress); err != nil {
			return err.Error()
		}
	}
	return ""
}

// AgentManifest describes the image of one agent.
type AgentManifest struct {
	ID        string          `json:"id"`
	Host      string          `json:"host"`
	Folder    string          `json:"folder"`           // beside the manifest
	Files     []FileInfo      `json:"files"`            // Summary.Files
	Parent    *Parent         `json:"parent,omitempty"` // that the image inherits memory from
	Processes int             `json:"processes"`
	Threads   int             `json:"threads"`
	Pause     time.Duration   `json:"pause_ns"` // the program stood still
	Write     time.Duration   `json:"write_ns"`
	Bytes     int64           `json:"bytes"` // of all files
	Plugins   []PluginVersion `json:"plugins"`
}

// PluginVersion names a plugin and the version of its state in an image.
type PluginVersion struct {
	Name  string `json:"name"`
	State uint16 `json:"state"`
}

// ReadManifest reads the manifest of the generation in the folder genDir and
// checks it: its own sum, its owner and place, that no name in it leads out of genDir,
// and that all files it lists are there, regular, the caller's, and of the size
// it says. Verify looks into the files too.
func ReadManifest(genDir string) (*Manifest, error) {
	dir, err := openDir(genDir, true)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := checkPlace(dir); err != nil {
		return nil, err
	}
	m, err := loadManifest(dir)
	if err != nil {
		return nil, err
	}
	if err := m.checkFiles(genDir); err != nil {
		return nil, err
	}
	return m, nil
}

// loadManifest reads the manifest of dir without a look at other files.
func loadManifest(dir *os.File) (*Manifest, error) {
	f, size, err := openRegular(dir, manifestFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxManifest {
		return nil, formatErrorf(f.Name(), "has %d bytes, want at most %d", size, maxManifest)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, err
	}
	m, what := decodeManifest(b)
	if what != "" {
		return nil, formatErrorf(f.Name(), "%s", what)
	}
	return m, nil
}

// encode returns the manifest as JSON whose last line but one holds the sum
// of all bytes before that line.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // commands have & and >
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	body := append(bytes.TrimSuffix(b.Bytes(), []byte("\n}\n")), ",\n"...)
	return append(body, sumLine(body)...), nil
}

// sumLine returns the end of a manifest that begins with body.
func sumLine(body []byte) string {
	return fmt.Sprintf("  \"xxh3\": \"%016x\"\n}\n", xxh3.Hash(body))
}

// decodeManifest returns the manifest, or what is wrong with it. The end must
// be what sumLine gives to the byte, so that every byte is under the sum.
func decodeManifest(b []byte) (m *Manifest, what string) {
	body := b[:max(0, len(b)-len(sumLine(nil)))]
	if string(b[len(body):]) != sumLine(body) {
		return nil, "manifest is damaged or truncated: checksum differs"
	}
	var version struct{ Format int }
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, err.Error()
	}
	if version.Format != manifestFormat {
		return nil, fmt.Sprintf("manifest format %d, want %d", version.Format, manifestFormat)
	}
	m = new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, err.Error()
	}
	return m, m.check()
}

// check returns what is wrong with the manifest by itself, or "".
func (m *Manifest) check() string {
	if what := checkComputation(m.Computation); what != "" {
		return what
	}
	if what := checkFileName(m.Name, maxNameLen); what != "" {
		return "computation: " + what
	}
	if m.Generation == 0 {
		return "generation 0"
	}
	if what := m.Settings.check(); what != "" {
		return what
	}
	if len(m.Agents) == 0 {
		return "no agents"
	}
	ids, folders := map[string]bool{}, map[string]bool{}
	for i := range m.Agents {
		a := &m.Agents[i]
		if what := a.check(); what != "" {
			return fmt.Sprintf("agent %q: %s", a.ID, what)
		}
		if a.Parent != nil && a.Parent.Generation >= m.Generation {
			return fmt.Sprintf("agent %q: builds on generation %d, which is not before %d", a.ID, a.Parent.Generation, m.Generation)
		}
		if ids[a.ID] || folders[a.Folder] {
			return fmt.Sprintf("agent %q or folder %q stands twice", a.ID, a.Folder)
		}
		ids[a.ID], folders[a.Folder] = true, true
	}
	return ""
}

func checkComputation(id string) string {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return fmt.Sprintf("computation id %q, want 32 hexadecimal digits", id)
	}
	return ""
}

// check wants the files that a Writer makes, in its order: any other name
// would be nothing of ours.
func (a *AgentManifest) check() string {
	if what := checkFileName(a.Folder, maxFileNameLen); what != "" {
		return "folder: " + what
	}
	if n := len(a.Files); n < 2 || n > maxStripes+1 {
		return fmt.Sprintf("%d files, want %s and 1 to %d stripes", n, imageFile, maxStripes)
	}
	if p := a.Parent; p != nil && (p.Generation == 0 || len(p.XXH3) != len(hexSum(0))) {
		return fmt.Sprintf("parent %d with the checksum %q", p.Generation, p.XXH3)
	}
	for i, f := range a.Files {
		want := imageFile
		if i > 0 {
			want = stripeName(i - 1)
		}
		if f.Name != want {
			return fmt.Sprintf("file %d is %q, want %s", i, f.Name, want)
		}
		if f.Size < 0 {
			return fmt.Sprintf("%s has %d bytes", f.Name, f.Size)
		}
	}
	return ""
}

// checkFiles compares the files in genDir with the list.
func (m *Manifest) checkFiles(genDir string) error {
	for i := range m.Agents {
		if err := m.Agents[i].checkFiles(genDir); err != nil {
			return err
		}
	}
	return nil
}

func (a *AgentManifest) checkFiles(genDir string) error {
	dir, err := openDir(filepath.Join(genDir, a.Folder), false)
	if err != nil {
		return fmt.Errorf("agent %q: %w", a.ID, err)
	}
	defer dir.Close()
	for _, info := range a.Files {
		f, size, err := openRegular(dir, info.Name)
		if err != nil {
			return fmt.Errorf("agent %q: %w", a.ID, err)
		}
		f.Close()
		if size != info.Size {
			return formatErrorf(f.Name(), "has %d bytes, the manifest says %d", size, info.Size)
		}
	}
	return nil
}
