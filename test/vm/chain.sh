#!/bin/bash
# chain.sh HOP: in a machine of vm.sh, brings programs back on this kernel which
# were suspended on another: HOP is first, next or last. What is kept in between
# is in /host/chain.
set -euo pipefail

hop=$1 hiatus=/tmp/suite/hiatus
export XDG_RUNTIME_DIR=/tmp/run
user() { setpriv --reuid=hiatus-test --regid=hiatus-test --clear-groups --inh-caps=-all -- env HOME=/home/hiatus-test "$@"; }

cp -a /host/suite /tmp/
install -d -m 700 -o hiatus-test -g hiatus-test "$XDG_RUNTIME_DIR"
if [ "$hop" = first ]; then
	install -d -m 755 -o hiatus-test -g hiatus-test /tmp/chain
else
	cp -a /host/chain /tmp/
	# The shared folder keeps no parts of seconds, and files must not have changed.
	while read -r at file; do touch -d "@$at" "/tmp/chain/$file"; done </host/chain/times
fi

await() { # FILE ABOVE: until the program has made more steps
	local until=$((SECONDS + 120))
	while [ "$(cat "$1" 2>/dev/null | sed 's/^0*//')" -le "$2" ] 2>/dev/null || [ ! -s "$1" ]; do
		[ ! -e "$(dirname "$1")/failed" ] && [ $SECONDS -lt $until ] || return 1
		sleep 0.05
	done
}

code=0
one() { # NAME COMMAND...
	local name=$1 dir=/tmp/chain/$1 steps=0 pid
	shift
	[ "$hop" != first ] || install -d -m 700 -o hiatus-test -g hiatus-test "$dir"
	cd "$dir"
	[ ! -s progress ] || steps=$(sed 's/^0*//' progress)
	if [ "$hop" = first ]; then
		user HT_DIR="$dir" "$hiatus" launch --name "$name" --ckptdir "$dir/images" -- "$@" </dev/null >>out 2>>err &
	else
		user HT_DIR="$dir" "$hiatus" restart "$dir/images" </dev/null >>out 2>>err &
	fi
	pid=$!
	await progress $((steps + 50))
	if [ "$hop" = last ]; then
		user touch stop
	else
		user "$hiatus" checkpoint "$name" --kill
	fi
	wait "$pid" || [ "$hop" != last ]
	[ "$hop" != last ] || [ "$(tail -n 1 out)" = ok ]
}
run() {
	local result=ok
	# By a job, as errexit does not hold in what is tested.
	one "$@" &
	if ! wait $!; then
		result=failed code=1
		tail -n 5 "/tmp/chain/$1/err" "/tmp/chain/$1/failed" || :
	fi
	printf '%-10s %-24s %s\n' "$1" "$(uname -r)" "$result"
}
run dynamic /tmp/suite/clocks
run static /tmp/suite/clocks.static
run go /tmp/suite/clocks.go
run python3 /usr/bin/python3 /tmp/suite/fixtures/clocks.py
rm -rf /host/chain
(cd /tmp/chain && find . -type f -name progress -printf '%T@ %p\n') >/tmp/times
cp -a /tmp/chain /host/
mv /tmp/times /host/chain/
exit $code
