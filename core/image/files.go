package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	fileMode = 0o600
)

// openDir opens a folder of an image. With follow unset, the folder itself
// must not be a symbolic link. The caller must own it, or be root.
func openDir(path string, follow bool) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	f, err := openAt(unix.AT_FDCWD, path, path, flags, 0)
	// open(2): O_NOFOLLOW with O_DIRECTORY gives ENOTDIR for a link.
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, formatErrorf(path, "not a folder")
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwner(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openRegular opens a file of dir for reading: a regular file of the
// caller's, not a symbolic link. O_NONBLOCK keeps a FIFO from blocking.
func openRegular(dir *os.File, name string) (f *os.File, size int64, err error) {
	path := filepath.Join(dir.Name(), name)
	f, err = openAt(int(dir.Fd()), name, path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, 0, formatErrorf(path, "is a symbolic link")
	case errors.Is(err, unix.ENOENT):
		return nil, 0, fmt.Errorf("file of an image is missing: %w", err)
	case err != nil:
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = formatErrorf(path, "not a regular file")
	}
	if err == nil {
		err = checkOwner(f)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// checkOwner refuses a file of another user, but to root, and one that everybody may write
// to. An image is code that a restart runs as the caller.
func checkOwner(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	if euid := os.Geteuid(); euid != 0 && int(st.Uid) != euid {
		return formatErrorf(f.Name(), "belongs to uid %d, not to uid %d", st.Uid, euid)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&unix.S_IWOTH != 0 && hasModes(f) {
		return formatErrorf(f.Name(), "everybody may write to it, mode %04o: if its content is to be trusted, chmod o-w", st.Mode&0o7777)
	}
	return nil
}

// hasModes says whether a file's mode is its own: some file systems have but one for all.
func hasModes(f *os.File) bool {
	const ntfs3 = 0x7366746e // NTFS3_SUPER_MAGIC of the kernel
	var fs unix.Statfs_t
	without := []int64{unix.FUSE_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, unix.V9FS_MAGIC,
		unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, ntfs3}
	return unix.Fstatfs(int(f.Fd()), &fs) != nil || !slices.Contains(without, int64(fs.Type))
}

// checkPlace refuses, to root, a folder of another user's that anybody could have
// put where it is: one of those above it is open to all, as /tmp.
func checkPlace(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: dir.Name(), Err: err}
	}
	if os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	path, err := filepath.EvalSymlinks(dir.Name())
	if err == nil {
		path, err = filepath.Abs(path)
	}
	for err == nil {
		var info os.FileInfo
		if info, err = os.Stat(path); err == nil && info.Mode().Perm()&0o002 != 0 {
			return formatErrorf(dir.Name(), "belongs to uid %d, and everybody may write to %s", st.Uid, path)
		}
		if path == "/" {
			break
		}
		path = filepath.Dir(path)
	}
	return err
}

// createFile makes a new file in dir with mode 0600, whatever the umask.
func createFile(dir *os.File, name string) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	f, err := openAt(int(dir.Fd()), name, path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(fileMode); err != nil {
		f.Close()
		return nil, errors.Join(err, unlinkFile(dir, name))
	}
	return f, nil
}

func unlinkFile(dir *os.File, name string) error {
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil {
		return &os.PathError{Op: "unlink", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return nil
}

// syncDir makes the names in a folder durable. fsync(2): EINVAL says that the
// file system has no such thing for folders.
func syncDir(dir *os.File) error {
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

func syncPath(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(dir), dir.Close())
}

// openAt is openat(2) that retries EINTR and gives the file its whole path.
func openAt(dirfd int, name, path string, flags int, mode uint32) (*os.File, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags, mode)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), path), nil
		case unix.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// lockFile takes the exclusive lock of f, at once or not at all unless wait is
// set. held is false, without an error, where another has it.
func lockFile(f *os.File, wait bool) (held bool, err error) {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case nil:
			return true, nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return false, nil
		default:
			return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// lockUnsupported says whether err means that the file system has no flock(2),
// as Lustre mounted without it.
func lockUnsupported(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOLCK)
}
