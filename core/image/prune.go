package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/internal/faultpoint"
)

// Prune removes all generations of a computation, named by its id, but the
// newest keep and those that these build on, and returns those that are gone. Generations of other
// computations, and those whose manifest cannot be read, stay. Each is renamed
// to a temporary name first, so that no crash leaves half of one that looks
// committed; the rest of a removal that was cut short goes at the next Begin.
// Of an agent of which ended does not say that its tree has, the newest image
// stays: it may have been lost. A nil ended says so of all.
func (s *Store) Prune(computation string, keep int, ended func(agent string) bool) (removed []uint64, err error) {
	if keep < 1 {
		return nil, fmt.Errorf("prune %s: keep %d generations, want at least 1", s.path, keep)
	}
	moved, removed, err := s.setAside(computation, keep, ended)
	if len(moved) == 0 {
		return nil, err
	}
	// Else the removal of files may become durable before the rename.
	if syncErr := syncPath(s.path); syncErr != nil {
		return removed, errors.Join(err, syncErr)
	}
	if err := faultpoint.At(faultpoint.Pruning); err != nil {
		return removed, err
	}
	for _, path := range moved {
		err = errors.Join(err, s.remove(path))
	}
	return removed, err
}

// remove removes the folder of a generation. To give back the room of its files takes
// 100 ms a GiB: it comes behind their names, where they have such an end.
func (s *Store) remove(path string) error {
	files := openFiles(path)
	err := os.RemoveAll(path)
	s.releasing.Go(func() {
		for _, f := range files {
			f.Close()
		}
	})
	return err
}

// openFiles opens the files in a folder and below, none on file systems that do not remove
// the name of an open file: NFS gives it another (nfs(5), "sillyrename"), FUSE may.
func openFiles(path string) (files []*os.File) {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil || !slices.Contains(localFileSystems, int64(st.Type)) {
		return nil
	}
	_ = filepath.WalkDir(path, func(name string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
				files = append(files, f)
			}
		}
		return nil // what is not open is given back at once
	})
	return files
}

var localFileSystems = []int64{unix.TMPFS_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC}

// setAside renames what Prune removes.
func (s *Store) setAside(computation string, keep int, ended func(agent string) bool) (moved []string, gens []uint64, err error) {
	old, err := s.unneeded(computation, keep, ended)
	if err != nil || len(old) == 0 {
		return nil, nil, err
	}
	lock, err := s.lock()
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	// Children before their parents, so that no crash leaves one alone.
	for _, gen := range slices.Backward(old) {
		if err := faultpoint.At(faultpoint.SettingAside); err != nil {
			return moved, gens, err
		}
		tmp := filepath.Join(s.path, tmpName(gen))
		err := os.Rename(filepath.Join(s.path, generationName(gen)), tmp)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another Prune was faster
		}
		if err != nil {
			return moved, gens, err
		}
		moved, gens = append(moved, tmp), append(gens, gen)
	}
	slices.Reverse(gens)
	return moved, gens, nil
}

// unneeded returns the generations of a computation that are neither among the
// newest keep, nor the newest of an agent that has not ended, nor below one of them
// in a chain.
func (s *Store) unneeded(computation string, keep int, ended func(agent string) bool) ([]uint64, error) {
	manifests, err := s.manifestsOf(computation)
	if err != nil || len(manifests) <= keep {
		return nil, err
	}
	needed, seen := map[uint64]bool{}, map[string]bool{}
	var old []uint64
	for i, m := range slices.Backward(manifests) { // parents come before their children
		last := slices.ContainsFunc(m.Agents, func(a AgentManifest) bool {
			return ended != nil && !seen[a.ID] && !ended(a.ID)
		})
		if i < len(manifests)-keep && !needed[m.Generation] && !last {
			old = append(old, m.Generation)
			continue
		}
		for _, a := range m.Agents {
			seen[a.ID] = true
			if a.Parent != nil {
				needed[a.Parent.Generation] = true
			}
		}
	}
	slices.Reverse(old)
	return old, nil
}
