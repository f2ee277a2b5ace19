package file

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hiatus-project/hiatus/plugin"
)

// kindOfStdio tells what a pipe of the launching command is. One that is left to be read, with nobody
// to write any more, as a shell's here-document, is the program's alone: nobody else would have its
// content. Others, and FIFOs, come from the restarting command.
func kindOfStdio(f plugin.OpenFile) (kind, error) {
	if !strings.HasPrefix(f.Link, "pipe:") || f.Flags&unix.O_ACCMODE == unix.O_WRONLY {
		return kindStdio, nil
	}
	fd, err := duplicate(f)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	events, err := pollNow(fd, unix.POLLIN)
	if err != nil {
		return "", plugin.Refuse(f, "%v", err)
	}
	if events&unix.POLLHUP != 0 && events&unix.POLLIN != 0 {
		return kindPipe, nil
	}
	return kindStdio, nil
}

// noteUnread keeps how much waits in a pipe or a socket that the program reads, which the launching command
// gave it: nobody has it when the program does not run on.
func (p *Plugin) noteUnread(f plugin.OpenFile, s *file, fd int) {
	t := f.Stat.Mode & unix.S_IFMT
	if t != unix.S_IFIFO && t != unix.S_IFSOCK || !s.readable() {
		return
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil { // EINVAL: a socket that listens
		return
	}
	if s.Unread = n; n > 0 && p.state.Ended {
		p.host.Log().Warn().Interface("descriptors", f.Refs).Str("link", f.Link).Int("bytes", n).
			Msg("what the program has not read yet from the launching command is not in the image")
	}
}

// warnUnread tells in a restart what is lost.
func (p *Plugin) warnUnread(s *file) {
	if s.Unread > 0 {
		p.host.Log().Warn().Str("link", string(s.Path)).Int("bytes", s.Unread).
			Msg("what the program had not read yet from the launching command is not in the image")
	}
}
