package e2e

import (
	"os"
	"strings"
)

// missingAddress has sockets at addresses that this host does not have, as the host of the
// checkpoint had (those are for documentation, RFC 5737 and 3849), and one in a directory that is gone.
func missingAddress(tr *trial) {
	tr.launch("python3", "-c", progresses+`
import os, socket, time
FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
def at(family, kind, address):
    s = socket.socket(family, kind)
    s.setsockopt(*FREEBIND[family], 1)
    s.bind((address, 0))
    if kind == socket.SOCK_STREAM:
        s.listen()
    s.setsockopt(*FREEBIND[family], 0)
    return s, s.getsockname()
all = [at(socket.AF_INET, socket.SOCK_STREAM, "192.0.2.1"), at(socket.AF_INET, socket.SOCK_DGRAM, "192.0.2.1")]
if os.path.exists("/proc/net/if_inet6"):
    all += [at(socket.AF_INET6, socket.SOCK_STREAM, "2001:db8::1"), at(socket.AF_INET6, socket.SOCK_DGRAM, "2001:db8::1")]
os.mkdir("dir", 0o750)
os.mkfifo("dir/fifo")
fifo = os.open("dir/fifo", os.O_RDWR)
unix = socket.socket(socket.AF_UNIX)
unix.bind("dir/name")
unix.listen()
second = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
second.bind("dir/second")
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
n, said = 0, "ok"
while not os.path.exists("stop"):
    for s, name in all:
        if s.getsockname() != name or s.getsockopt(*FREEBIND[s.family]) != 0:
            said = "%s, was at %s" % (s, name)
    with socket.socket(socket.AF_UNIX) as c:
        c.connect("dir/name")
        unix.accept()[0].close()
    client.send(b"%08d" % n)
    if int(peer.recv(8)) != n:
        said = "the connection is another"
    n += 1
    progress(n)
    time.sleep(0.02)
print(said, flush=True)
`)
	tr.advance(2)
	tr.suspend()
	tr.removeAll("dir")
	o := tr.hiatus("restart", tr.images())
	for _, want := range []string{"192.0.2.1:", "not an address of this host", "--allow-missing-address"} {
		if o.code != 99 || !strings.Contains(o.stderr, want) {
			tr.Fatalf("restart: %s: want exit code 99 and %q", o, want)
		}
	}
	tr.gone()
	if info, err := os.Stat(tr.path("dir")); err == nil {
		tr.Errorf("it has left a directory: %v", info)
	}
	tr.restart("--allow-missing-address")
	tr.advance(3)
	if info, err := os.Stat(tr.path("dir")); err != nil || info.Mode().Perm() != 0o750 {
		tr.Errorf("the directory: %v, %v", info, err)
	}
	if log := tr.read("hiatus.log"); strings.Count(log, "nobody reaches it there") < 2 {
		tr.Errorf("no warning of each: %s", log)
	}
	tr.finish()
}
