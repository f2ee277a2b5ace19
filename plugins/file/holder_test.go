package file

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who holds the other end of a pipe is named, by the end that it holds.
func TestOutsider(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("cat")
	holder.ExtraFiles = []*os.File{w}
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = holder.Wait()
	}()
	w.Close()
	if got, want := outsider(link, unix.O_WRONLY), fmt.Sprintf(", %d (cat)", holder.Process.Pid); !strings.HasSuffix(got, want) {
		t.Errorf("the writer is %q, want %q", got, want)
	}
	if got := outsider(link, unix.O_RDONLY); strings.Contains(got, ",") {
		t.Errorf("the reader is %q, want nobody that could be named", got)
	}
}
