package image

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
	"github.com/hiatus-project/hiatus/internal/private"
)

const (
	// pendingLock is the file in a temporary folder whose lock says that
	// the writer lives.
	pendingLock = "lock"
	agentPrefix = "agent-"
	tmpRandom   = 8 // bytes in the name of a temporary folder
)

// Pending is a generation that is being written. It is ended with Commit or
// Abort.
type Pending struct {
	store      *Store
	generation uint64
	path       string   // of the temporary folder; "" when ended
	lock       *os.File // held as long as the folder is temporary
}

// Begin starts a generation in a temporary folder, and removes those of
// writers that died. A generation that exists is an error (fs.ErrExist).
func (s *Store) Begin(generation uint64) (*Pending, error) {
	if generation == 0 {
		return nil, fmt.Errorf("begin in %s: generations count from 1", s.path)
	}
	if err := s.Make(); err != nil {
		return nil, err
	}
	s.releasing.Wait() // it may need the room
	lock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	final := filepath.Join(s.path, generationName(generation))
	if _, err := os.Lstat(final); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return nil, &os.PathError{Op: "begin generation", Path: final, Err: err}
	}
	if err := s.clean(); err != nil {
		return nil, err
	}
	p := &Pending{store: s, generation: generation, path: filepath.Join(s.path, tmpName(generation))}
	if err := p.make(); err != nil {
		return nil, errors.Join(err, p.Abort())
	}
	return p, nil
}

// tmpName returns a new name for a temporary folder.
func tmpName(generation uint64) string {
	var random [tmpRandom]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("%s%d-%s", tmpPrefix, generation, hex.EncodeToString(random[:]))
}

// isTmpName says whether tmpName may have made the name.
func isTmpName(name string) bool {
	rest, prefixed := strings.CutPrefix(name, tmpPrefix)
	number, random, _ := strings.Cut(rest, "-")
	generation, err := strconv.ParseUint(number, 10, 64)
	_, hexErr := hex.DecodeString(random)
	return prefixed && err == nil && hexErr == nil && len(random) == hex.EncodedLen(tmpRandom) &&
		number == strconv.FormatUint(generation, 10) && random == strings.ToLower(random)
}

func (p *Pending) make() error {
	if err := private.MakeDir(p.path); err != nil {
		return err
	}
	dir, err := openDir(p.path, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	if p.lock, err = createFile(dir, pendingLock); err != nil {
		return err
	}
	if _, err = lockFile(p.lock, false); err != nil && !lockUnsupported(err) {
		return err
	}
	return nil
}

// Path returns the temporary folder.
func (p *Pending) Path() string { return p.path }

// AgentDir makes the folder of an agent and returns its path, for Create. Its
// last element, "agent-" and the id, is AgentManifest.Folder.
func (p *Pending) AgentDir(id string) (string, error) {
	if p.path == "" {
		return "", os.ErrClosed
	}
	if what := checkFileName(id, maxFileNameLen-len(agentPrefix)); what != "" {
		return "", fmt.Errorf("agent: %s", what)
	}
	path := filepath.Join(p.path, agentPrefix+id)
	if err := private.MakeDir(path); err != nil {
		return "", err
	}
	return path, nil
}

// Commit writes m, whose files have been made durable by Writer.Close, and
// gives the generation its name: when it returns path, the generation is
// durable. After an error the generation is not there, and the caller calls
// Abort. m.Format is not looked at.
func (p *Pending) Commit(m *Manifest) (path string, err error) {
	if p.path == "" {
		return "", os.ErrClosed
	}
	if err := p.check(m); err != nil {
		return "", err
	}
	if err := p.writeManifest(m); err != nil {
		return "", err
	}
	path = filepath.Join(p.store.path, generationName(p.generation))
	if err := p.publish(path); err != nil {
		return "", fmt.Errorf("commit generation %d: %w", p.generation, err)
	}
	_ = faultpoint.At(faultpoint.Committed)
	p.path = ""
	// The generation stands. A lock file left in it harms nobody, so that
	// errors from here on would only mislead.
	_ = os.Remove(filepath.Join(path, pendingLock))
	_ = p.lock.Close()
	return path, nil
}

// check keeps a manifest that could not be read again from being committed.
func (p *Pending) check(m *Manifest) error {
	what := m.check()
	if what == "" && m.Generation != p.generation {
		what = fmt.Sprintf("generation %d, begun as %d", m.Generation, p.generation)
	}
	if what != "" {
		return formatErrorf(filepath.Join(p.path, manifestFile), "%s", what)
	}
	if err := m.checkFiles(p.path); err != nil {
		return err
	}
	return p.checkParents(m)
}

// checkParents keeps a generation whose parent is gone from being committed.
func (p *Pending) checkParents(m *Manifest) error {
	for _, a := range m.Agents {
		if a.Parent == nil {
			continue
		}
		if _, _, err := m.findParent(filepath.Join(p.store.path, generationName(a.Parent.Generation)), a); err != nil {
			return fmt.Errorf("agent %q: %w", a.ID, err)
		}
	}
	return nil
}

func (p *Pending) writeManifest(m *Manifest) error {
	stamped := *m
	stamped.Format = manifestFormat
	b, err := stamped.encode()
	if err != nil {
		return err
	}
	if len(b) > maxManifest {
		return fmt.Errorf("manifest of generation %d has %d bytes, want at most %d", p.generation, len(b), maxManifest)
	}
	dir, err := openDir(p.path, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := createFile(dir, manifestFile)
	if err != nil {
		return err
	}
	if err = faultpoint.At(faultpoint.ManifestWriting); err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = faultpoint.At(faultpoint.ManifestSyncing)
	}
	if err == nil {
		err = beside(f.Sync, func() error { return syncDir(dir) })
	}
	return errors.Join(err, f.Close())
}

// publish renames the folder: the commit point. rename(2) fails with ENOTEMPTY
// or EEXIST where the generation exists. Whether a rename that cannot be synced
// would survive is unknown, so it is taken back.
func (p *Pending) publish(path string) error {
	if err := faultpoint.At(faultpoint.Renaming); err != nil {
		return err
	}
	if err := os.Rename(p.path, path); err != nil {
		return err
	}
	err := faultpoint.At(faultpoint.Renamed)
	if err == nil {
		err = syncPath(p.store.path)
	}
	if err != nil {
		return errors.Join(err, os.Rename(path, p.path))
	}
	return nil
}

// Abort removes what was written. After Commit or another Abort it does
// nothing, so that it can be deferred.
func (p *Pending) Abort() error {
	if p.path == "" {
		return nil
	}
	err := os.RemoveAll(p.path)
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	p.path = ""
	return err
}
