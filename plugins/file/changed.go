package file

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// checkFiles compares the files of an image with those that are there, before
// anything is made. All findings are joined. here says that the files were those of this
// host, since its last boot.
func (p *Plugin) checkFiles(here bool) error {
	var errs []error
	for index, d := range p.state.Inodes {
		if d.Origin == originNamed {
			errs = append(errs, p.decideNamed(index, d))
		}
	}
	written := map[pathname]bool{} // by the program, since
	for _, s := range p.state.Files {
		if s.Kind == kindRegular && s.writable() && (s.Inherited || !p.state.Ended) {
			written[s.Path] = true
		}
	}
	seen := map[pathname]bool{}
	for _, id := range slices.Sorted(maps.Keys(p.state.Files)) {
		s := p.state.Files[id]
		if s.Kind != kindRegular || s.Virtual || seen[s.Path] || s.fresh {
			continue
		}
		seen[s.Path] = true
		errs = append(errs, p.checkFile(s, written[s.Path], here))
	}
	return errors.Join(errs...)
}

// warnBeside tells of files that another restart of the image, or what it was made of, writes to as well.
func (p *Plugin) warnBeside() {
	var paths []string
	for _, s := range p.state.Files {
		if s.Kind == kindRegular && s.writable() && !s.Virtual && !s.fresh && !slices.Contains(paths, string(s.Path)) {
			paths = append(paths, string(s.Path))
		}
	}
	if len(paths) > 0 {
		slices.Sort(paths)
		p.host.Log().Warn().Strs("paths", paths).Msg("the computation that the image is of, or another restart of it, lives (or its host has failed just now), and writes to the same files")
	}
}

// checkFile refuses a file that has changed. The program itself may have
// written to one, if it ran on after the checkpoint, as it has before a crash:
// then it writes the same again. So may whoever has launched it, where it is
// the output of both.
func (p *Plugin) checkFile(s *file, written, here bool) error {
	var now unix.Stat_t
	if err := statPath(p.place(s.Path), s.Flags, &now); err != nil {
		return p.checkGone(s, err)
	}
	if now.Mode&unix.S_IFMT != s.Was.Mode&unix.S_IFMT {
		return fmt.Errorf("%s: %w", s.Path, errReplaced)
	}
	if now.Size == s.Was.Size && now.Mtim.Nano() == s.Was.Mtime {
		return nil
	}
	other := ""
	if here {
		other = p.isOther(s, &now)
	}
	if !p.config.AllowChangedFiles && (!written || now.Size < s.Was.Size || other != "") {
		return fmt.Errorf("%s: %s%s; --allow-changed-files goes on with it as it is now", s.Path, differs(s.Was.Size, s.Was.Mtime, &now), other)
	}
	p.host.Log().Warn().Str("path", string(s.Path)).
		Int64("size", now.Size).Int64("size_was", s.Was.Size).
		Uint64("ino", now.Ino).Uint64("ino_was", s.Was.Ino).
		Int64("offset", s.Pos).
		Msg("the file has changed since the checkpoint")
	return nil
}

// checkGone refuses a file that is not there any more. To one that the program only appends to, as
// a log that was rotated, a new one is as good, where the user says so.
func (p *Plugin) checkGone(s *file, err error) error {
	var same []*file
	for _, other := range p.state.Files {
		if other.Kind == kindRegular && other.Path == s.Path {
			same = append(same, other)
		}
	}
	appends := errors.Is(err, unix.ENOENT) && !slices.ContainsFunc(same, func(f *file) bool {
		return f.Flags&(unix.O_APPEND|unix.O_ACCMODE) != unix.O_APPEND|unix.O_WRONLY
	})
	switch {
	case appends && p.config.AllowChangedFiles:
		for _, f := range same {
			f.fresh = true
		}
		p.host.Log().Warn().Str("path", string(s.Path)).Msg("the file is gone: the program goes on with a new one, which begins empty")
		return nil
	case appends:
		return fmt.Errorf("%s: stat: %w; it was open: put it back, or go on with a new one by --allow-changed-files", s.Path, err)
	}
	return fmt.Errorf("%s: stat: %w; it was open: put it back (another time --ckpt-open-files keeps it in the image)", s.Path, err)
}

// isOther tells of a file that has taken the name of the one that was open, as after a
// rotation of logs, where the program would write into the midst of it.
func (p *Plugin) isOther(s *file, now *unix.Stat_t) string {
	if now.Dev != s.Was.Dev || now.Ino == s.Was.Ino || s.Flags&unix.O_APPEND != 0 || !numbersLast(p.place(s.Path)) {
		return ""
	}
	return fmt.Sprintf(", and it is another file (inode %d, it was %d)", now.Ino, s.Was.Ino)
}

// numbersLast says whether a file keeps its inode number as long as it is there: some
// file systems number anew at each mount.
func numbersLast(path string) bool {
	var fs unix.Statfs_t
	anew := []int64{unix.FUSE_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC}
	return unix.Statfs(path, &fs) == nil && !slices.Contains(anew, int64(fs.Type))
}

// differs tells how a file differs from the one that was.
func differs(size, mtime int64, now *unix.Stat_t) string {
	const form = time.DateTime + ".000000000"
	return fmt.Sprintf("the file has changed since the checkpoint: %d bytes, modified %s; it had %d bytes, modified %s",
		now.Size, time.Unix(now.Mtim.Unix()).Format(form), size, time.Unix(0, mtime).Format(form))
}
