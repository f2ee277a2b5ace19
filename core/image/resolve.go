package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Resolve finds the folder of a generation. path is a --ckptdir that holds one
// computation, DIR/NAME, DIR/NAME/GENERATION, or a manifest.json. generation 0
// means the newest committed one. An error that is fs.ErrNotExist says that
// there is no such generation. Where the folder of the generation, or DIR/NAME, is
// a symbolic link, genDir is where it leads: its parents are there, and there new
// generations go.
func Resolve(path string, generation uint64) (genDir string, err error) {
	genDir, err = find(path, generation)
	if err != nil || !isLink(genDir) && !isLink(filepath.Dir(genDir)) {
		return genDir, err
	}
	return filepath.EvalSymlinks(genDir)
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// find is Resolve without regard to links.
func find(path string, generation uint64) (genDir string, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case info.Mode().IsRegular() && filepath.Base(path) == manifestFile:
		return resolveGeneration(filepath.Dir(path), generation)
	case !info.IsDir():
		return "", fmt.Errorf("%s: not a folder of checkpoints, nor a %s", path, manifestFile)
	case hasManifest(path):
		return resolveGeneration(path, generation)
	}
	gens, err := generations(path)
	if err != nil {
		return "", err
	}
	if len(gens) > 0 {
		return pick(path, gens, generation)
	}
	return resolveDir(path, generation)
}

// resolveGeneration takes the path of a generation, and asks its manifest only
// if the caller also gives a number: the folder may have been renamed.
func resolveGeneration(genDir string, generation uint64) (string, error) {
	if generation == 0 {
		return genDir, nil
	}
	m, err := ReadManifest(genDir)
	if err != nil {
		return "", err
	}
	if m.Generation != generation {
		return "", fmt.Errorf("%s is generation %d, not %d%w", genDir, m.Generation, generation, errAbsent)
	}
	return genDir, nil
}

// errAbsent is fs.ErrNotExist without its words.
var errAbsent error = absent{}

type absent struct{}

func (absent) Error() string        { return "" }
func (absent) Is(target error) bool { return target == fs.ErrNotExist }

// pick returns a committed generation of the store at path.
func pick(path string, gens []uint64, generation uint64) (string, error) {
	if generation == 0 {
		generation = gens[len(gens)-1]
	}
	if !slices.Contains(gens, generation) {
		return "", fmt.Errorf("%s has no generation %d, but %s%w", path, generation, list(gens), errAbsent)
	}
	return filepath.Join(path, generationName(generation)), nil
}

func list(gens []uint64) string {
	s := make([]string, len(gens))
	for i, gen := range gens {
		s[i] = fmt.Sprint(gen)
	}
	return strings.Join(s, ", ")
}

// resolveDir takes a --ckptdir.
func resolveDir(path string, generation uint64) (string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var names []string
	var found []uint64
	for _, e := range entries {
		if !e.IsDir() || checkFileName(e.Name(), maxNameLen) != "" {
			continue
		}
		gens, err := generations(filepath.Join(path, e.Name()))
		if err != nil || len(gens) == 0 {
			continue // not ours to read, or no store
		}
		names, found = append(names, e.Name()), gens
	}
	switch len(names) {
	case 0:
		return "", fmt.Errorf("%s has no committed checkpoint%w", path, errAbsent)
	case 1:
		return pick(filepath.Join(path, names[0]), found, generation)
	}
	return "", fmt.Errorf("%s has checkpoints of %d computations (%s): give %s", path, len(names), strings.Join(names, ", "), filepath.Join(path, "NAME"))
}
