package file

import (
	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// kindOfStdio tells what a pipe of the launching command is. One that is left to be read, with nobody
// to write any more, as a shell's here-document, is the program's alone: nobody else would have its
// content. Others come from the restarting command.
func kindOfStdio(f plugin.OpenFile) (kind, error) {
	n, err := unread(f)
	if err != nil || n == 0 {
		return kindStdio, err
	}
	fd, err := duplicate(f)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	events, err := pollNow(fd, 0)
	if err != nil {
		return "", plugin.Refuse(f, "%v", err)
	}
	if events&unix.POLLHUP != 0 {
		return kindPipe, nil
	}
	return kindStdio, nil
}

// unread returns how many bytes wait in a pipe or a socket that the program reads.
func unread(f plugin.OpenFile) (int, error) {
	t := f.Stat.Mode & unix.S_IFMT
	if t != unix.S_IFIFO && t != unix.S_IFSOCK || f.Flags&unix.O_ACCMODE == unix.O_WRONLY {
		return 0, nil
	}
	fd, err := duplicate(f)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, nil // EINVAL: a socket that listens
	}
	return n, nil
}

// noteUnread keeps how much the program had still to read of what the launching command gave it:
// nobody has it when the program does not run on.
func (p *Plugin) noteUnread(f plugin.OpenFile, s *file) (err error) {
	if s.Unread, err = unread(f); err == nil && s.Unread > 0 && p.state.Ended {
		p.host.Log().Warn().Interface("descriptors", f.Refs).Str("link", f.Link).Int("bytes", s.Unread).
			Msg("what the program has not read yet from the launching command is not in the image")
	}
	return err
}

// warnUnread tells in a restart what is lost.
func (p *Plugin) warnUnread(s *file) {
	if s.Unread > 0 {
		p.host.Log().Warn().Str("link", string(s.Path)).Int("bytes", s.Unread).
			Msg("what the program had not read yet from the launching command is not in the image")
	}
}
