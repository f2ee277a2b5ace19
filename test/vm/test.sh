#!/bin/bash
# test.sh [-a ARCH] [core|chain]...: what needs other kernels than the host's, see
# vm.sh. ARCH is amd64 or arm64.
# core: the core of the tests end to end on 6.1 and 5.10, which lack much that
# newer ones have. chain: programs that go from 6.1 to 6.12, to the newest and
# back to 5.10. The C library here must not be newer than that of Debian 12; for
# another architecture than the host's gcc-ARCH-linux-gnu is needed, and
# libc6-dev-ARCH-cross.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export CGO_ENABLED=0
arch=amd64
if [ "${1:-}" = -a ]; then
	arch=$2
	shift 2
fi
[ $# -gt 0 ] || set -- core chain

programs="python3|go|C-threads|sleeps|blocked-calls|signals|threads|memory|self|tree|files|events|churn|stubborn"
behaviours="killed-with-SIGKILL|clocks-leave-the-downtime-out|restarted-twice-at-once|refused-userfaultfd|detached|compressed"
objects="
engine/(credentials|deleted_program|guard_regions|membarrier|many_mappings|mlock|numa_memory|prctl_process|rlimits|stack_growth|vma_names)
event/(epoll_kinds|epoll_oneshot|eventfd_counter|inotify_watches|pidfd_zombie|signalfd_pending)
file/(deleted_mapped|flock|memfd_seals|ofd_lock|pipe_full|posix_lock|pty_session|replaced|tmpfile_linked)
shm/(anon_forks|anon_partial|file_shared|mq_content|msg_messages|sem_undo|sysv_processes)
socket/(tcp_full|tcp_options|tcp_pair|udp|unix_datagrams|unix_names|unix_rights)
timer/(alarm|clock_cpu|clock_vdso|posix_clocks|posix_ids|posix_pending|sleep_relative|timerfd_unread)
"

run="TestEndToEnd/($programs|$behaviours)|TestTimeOfDay"
for o in $objects; do
	run="$run|TestObjects/$o"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/hiatus-vm-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/suite" "$work/test/e2e"
cp -r test/objects test/fixtures "$work/test/"
cp test/vm/core.sh test/vm/chain.sh "$work/"
printf '%s\n' "$run" >"$work/core"
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*) exit 64 ;;
esac
if [ "$machine" != "$(uname -m)" ]; then
	mkdir "$work/bin"
	ln -s "$(command -v $machine-linux-gnu-gcc)" "$work/bin/gcc"
	PATH=$work/bin:$PATH
fi
go test -c -trimpath -vet=off -o "$work/builder" ./test/e2e
export GOARCH=$arch
go test -c -trimpath -vet=off -o "$work/e2e.test" ./test/e2e
# Builds what the tests run, and runs none of them.
(cd test/e2e && HIATUS_E2E_DIR=$work/suite "$work/builder" -test.run "$(sed 's,|Test,/none&,g; s,$,/none,' "$work/core")")
rm "$work/builder"

gcc -O1 -static -o "$work/suite/clocks.static" test/fixtures/clocks.c
go build -trimpath -buildvcs=false -o "$work/suite/clocks.go" ./test/fixtures/clocks

code=0
on() { # SUITE COMMAND...
	local c=0
	vm "$@" || c=$?
	if [ $c = 125 ]; then
		echo "the machine has not booted, which says nothing of hiatus: once more"
		c=0
		vm "$@" || c=$?
	fi
	[ $c = 0 ] || code=$c
}
vm() { bash test/vm/vm.sh -a "$arch" -s "$1" -d "$work" -t 3000 -- "${@:2}"; }
for part; do
	case $part in
	core)
		on bookworm bash core.sh
		on bullseye bash core.sh
		;;
	chain)
		on bookworm bash chain.sh first
		on bookworm-backports bash chain.sh next
		on trixie-backports bash chain.sh next
		on bullseye bash chain.sh last
		;;
	*) echo "core or chain, not $part"; exit 64 ;;
	esac
done
exit $code
