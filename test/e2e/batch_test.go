package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Programs that have their own end: their result is compared with the one
// that is known.

const (
	archiveFiles    = 160
	archiveFileSize = 256 << 10
	projectFiles    = 200
)

// archive is tar | gzip | sha256sum over a big tree.
func archive() program {
	// The tree is packed again and again until the end is asked for.
	const pipeline = `set -o pipefail; n=0
		while %s; do tar -cf - tree || exit; n=$((n+1)); echo $n >rounds; done |
		gzip -n -9 | tee archive.gz | sha256sum >sum`
	return program{
		name:   "tar | gzip | sha256sum",
		needs:  []string{"bash", "tar", "gzip", "sha256sum"},
		stride: 3 << 20,
		args: func(tr *trial) []string {
			makeTree(tr)
			return []string{"bash", "-c", fmt.Sprintf(pipeline, "[ ! -e stop ]")}
		},
		progress: func(tr *trial) int64 { return fileSize(tr, "archive.gz") },
		finish: func(tr *trial) {
			tr.write("stop", "")
			tr.ends(tr.front, 0)
			got := tr.read("sum")
			again := fmt.Sprintf("[ $n -lt %s ]", strings.TrimSpace(tr.read("rounds")))
			if o := tr.exec("bash", "-c", fmt.Sprintf(pipeline, again)); o.code != 0 {
				tr.Fatalf("the same without hiatus: %s", o)
			}
			if want := tr.read("sum"); got != want {
				tr.Errorf("sha256sum wrote %q, without hiatus %q", got, want)
			}
		},
	}
}

// makeTree makes files with text that gzip has some work with, always the same.
func makeTree(tr *trial) {
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 3000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", random.Uint64N(1<<40))
	}
	for i := range archiveFiles {
		var text strings.Builder
		for text.Len() < archiveFileSize {
			text.WriteString(words[random.IntN(len(words))])
			text.WriteByte(' ')
		}
		name := fmt.Sprintf("tree/%02d/%03d", i%16, i)
		tr.mkdir(filepath.Dir(name))
		tr.write(name, text.String())
	}
}

// mkdir makes a directory of the identity's, and those above it.
func (tr *trial) mkdir(name string) {
	if name == "." || tr.exists(name) {
		return
	}
	tr.mkdir(filepath.Dir(name))
	if err := os.Mkdir(tr.path(name), 0o755); err != nil {
		tr.Fatal(err)
	}
	tr.own(tr.path(name))
}

func fileSize(tr *trial, name string) int64 {
	info, err := os.Stat(tr.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		tr.Fatal(err)
	}
	return info.Size()
}

// makeProject is make -j2 of a generated C project.
func makeProject() program {
	return program{
		name:   "make -j2",
		needs:  []string{"make", "gcc"},
		stride: 40,
		args: func(tr *trial) []string {
			writeProject(tr)
			return []string{"make", "-j2", "-C", "project"}
		},
		progress: func(tr *trial) int64 {
			objects, err := filepath.Glob(tr.path("project/*.o"))
			if err != nil {
				tr.Fatal(err)
			}
			return int64(len(objects))
		},
		finish: func(tr *trial) {
			tr.ends(tr.front, 0)
			want := projectFiles * (projectFiles - 1) / 2
			if o := tr.exec(tr.path("project/sum")); o.code != 0 || o.stdout != fmt.Sprintln(want) {
				tr.Errorf("the program that was built: %s, want %d", o, want)
			}
			if o := tr.exec("make", "-q", "-C", "project"); o.code != 0 {
				tr.Errorf("make has more to do: %s", o)
			}
		},
	}
}

// writeProject writes a function a file, and a main that adds them up.
func writeProject(tr *trial) {
	tr.mkdir("project")
	var calls, declarations strings.Builder
	for i := range projectFiles {
		tr.write(fmt.Sprintf("project/f%d.c", i), fmt.Sprintf(
			"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%d(void)\n{\n\treturn %d;\n}\n", i, i))
		fmt.Fprintf(&declarations, "int f%d(void);\n", i)
		fmt.Fprintf(&calls, "\tn += f%d();\n", i)
	}
	tr.write("project/main.c", fmt.Sprintf(
		"#include <stdio.h>\n%s\nint main(void)\n{\n\tint n = 0;\n\n%s\tprintf(\"%%d\\n\", n);\n\treturn 0;\n}\n", &declarations, &calls))
	tr.write("project/Makefile", `CFLAGS = -O1 -g
OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))

sum: $(OBJECTS)
	$(CC) -o $@ $(OBJECTS)
`)
}

// sqlite is one sqlite3 with a database file, and a shell that gives it
// transactions.
func sqlite() program {
	const job = `
n=0
echo "PRAGMA synchronous=OFF; CREATE TABLE t (n INTEGER PRIMARY KEY, square INTEGER, text TEXT);"
while [ ! -e stop ]; do
	n=$((n + 1))
	echo "BEGIN; INSERT INTO t VALUES ($n, $n * $n, hex(randomblob(500)));"
	echo "UPDATE t SET square = square + 0 WHERE n > $n - 10;"
	echo "COMMIT; SELECT max(n) FROM t;"
	# Not faster than it answers: else pipes would hold most of the work.
	while [ "$(cat progress)" != "$n" ]; do sleep 0.002; done
done
echo "PRAGMA integrity_check; SELECT CASE WHEN count(*) = $n AND sum(square) = $n * ($n + 1) * (2 * $n + 1) / 6 THEN 'ok' END FROM t;"
`
	const reader = `while read -r line; do case $line in ok) echo ok;; *) echo "$line" >progress.new && mv progress.new progress;; esac; done`
	return program{
		name:  "sqlite3",
		needs: []string{"bash", "sqlite3"},
		args: func(tr *trial) []string {
			tr.write("progress", "0\n")
			return []string{"bash", "-c", "set -o pipefail; { " + job + "} | sqlite3 -bail database | { " + reader + "; }"}
		},
		finish: func(tr *trial) {
			tr.finish()
			if out := tr.front.stdout.String(); !strings.HasSuffix(out, "ok\nok\n") {
				tr.Errorf("integrity_check and sums: %q, want ok twice", out)
			}
		},
	}
}
