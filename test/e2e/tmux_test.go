package e2e

import (
	"fmt"
	"strings"
)

// tmux is a server with a shell and vim in it. Its keys come from outside, by
// a client that connects to the server's socket.
func tmux() program {
	return program{
		name:  "tmux, bash, vim",
		needs: []string{"tmux", "vim", "bash"},
		args: func(tr *trial) []string {
			return []string{"tmux", "-S", tr.path("tmux"), "-f", "/dev/null",
				"new-session", "-d", "-x", "100", "-y", "30", "bash --norc --noprofile"}
		},
		drive: func(tr *trial, turn int) {
			tr.await("the server", func() bool { return tr.exec("tmux", "-S", tr.path("tmux"), "has-session").code == 0 })
			if turn == 0 {
				startVim(tr)
			}
			typeLine(tr, turn)
		},
		finish: func(tr *trial) {
			typeLine(tr, 99)
			leaveVim(tr)
		},
	}
}

// keys sends keys to the only pane, as a terminal would.
func keys(tr *trial, keys ...string) {
	tr.Helper()
	if o := tr.exec("tmux", append([]string{"-S", tr.path("tmux"), "send-keys"}, keys...)...); o.code != 0 {
		tr.Fatalf("send-keys %q: %s", keys, o)
	}
}

// screen is what the pane shows; "" while there is no server.
func screen(tr *trial) string {
	return tr.exec("tmux", "-S", tr.path("tmux"), "capture-pane", "-p").stdout
}

func startVim(tr *trial) {
	tr.Helper()
	tr.await("the shell's prompt", func() bool { return strings.Contains(screen(tr), "bash-") })
	keys(tr, "vim -u NONE -N -n notes", "Enter")
	tr.await("vim", func() bool { return strings.Contains(screen(tr), "~") })
}

// typeLine adds a line and writes the file: seen on the disk and on the
// screen.
func typeLine(tr *trial, turn int) {
	tr.Helper()
	line := fmt.Sprintf("line %d", turn)
	keys(tr, "Go"+line, "Escape", ":w", "Enter")
	tr.await("the line in the file", func() bool { return strings.Contains(tr.read("notes"), line+"\n") })
	tr.await("the line on the screen", func() bool { return strings.Contains(screen(tr), line) })
}

// leaveVim goes back to the shell, which is as it was, and ends it; with the
// last session the server ends.
func leaveVim(tr *trial) {
	tr.Helper()
	keys(tr, ":q", "Enter")
	// Vim would take what is typed ahead with it.
	tr.await("the shell", func() bool { return strings.Contains(screen(tr), "bash-") })
	keys(tr, "echo $((6 * 7)) >answer; exit", "Enter")
	tr.ends(tr.front, 0)
	if got := tr.read("answer"); got != "42\n" {
		tr.Errorf("the shell wrote %q, want 42", got)
	}
}
