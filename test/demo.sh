#!/bin/bash
# The first thing to see: a python3 program with threads counts, is
# checkpointed and killed, and goes on from the number where it was.
set -euo pipefail

# What a build system leaves open is not for the program. Bash reads this
# script through 255.
for fd in /proc/self/fd/*; do
	fd=${fd##*/}
	if [ "$fd" -gt 2 ] && [ "$fd" != 255 ]; then
		eval "exec $fd>&-"
	fi
done

root=$(cd "$(dirname "$0")/.." && pwd)
export PATH=$root/bin:$PATH

if [ ! -x /usr/bin/python3 ]; then
	echo "python3 is missing: installing it"
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -q
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends python3 </dev/null
fi

dir=$(mktemp -d)
front=
cleanup() {
	[ -z "$front" ] || hiatus kill demo 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT

say() { printf '\n# %s\n' "$*"; }

cat >"$dir/count.py" <<'PYTHON'
"""Four threads take turns to count; the number is written down at each turn."""
import os, threading, time

number, turn, lock = 0, 0, threading.Condition()

def count(me):
    global number, turn
    while True:
        with lock:
            lock.wait_for(lambda: turn == me)
            number, turn = number + 1, (me + 1) % 4
            with open("number.new", "w") as f:
                f.write(f"{number}\n")
            os.rename("number.new", "number")
            lock.notify_all()
        time.sleep(0.05)

for me in range(4):
    threading.Thread(target=count, args=(me,)).start()
PYTHON
cd "$dir"

# past N waits until the number is greater than N.
past() {
	for _ in $(seq 1200); do
		[ -s number ] && [ "$(cat number)" -gt "$1" ] && return
		sleep 0.05
	done
	echo "the program does not count on" >&2
	exit 1
}

say "hiatus launch --name demo --ckptdir images -- python3 count.py &"
hiatus launch --name demo --ckptdir images -- /usr/bin/python3 count.py &
front=$!
past 20
echo "it has counted to $(cat number)"

say "hiatus checkpoint demo"
saved=$(cat number)
hiatus checkpoint demo
past $((saved + 20))
echo "checkpointed at $saved or a little later; it counts on: $(cat number)"

say "kill -9"
hiatus status demo
pids=$(hiatus status demo --json | tr -d ' ,' | sed -n 's/^"host_pid"://p')
kill -9 $pids
code=0
wait "$front" || code=$?
front=
killed=$(cat number)
echo "killed at $killed; hiatus launch ended with $code (128 + 9)"

say "hiatus restart images &"
rm number
hiatus restart images &
front=$!
past 0
first=$(cat number)
past "$first"
echo "saved at $saved, seen at $first after the restart, it counts on: $(cat number)"
if [ "$first" -lt "$saved" ]; then
	echo "that is not where it was" >&2
	exit 1
fi

say "hiatus kill demo"
hiatus kill demo
wait "$front" || true
front=
say "done"
