#!/bin/bash
# as-user.sh BINARY [ARG...]: runs a test binary as the ordinary user of the
# tests. For `go test -exec`, whose binaries stand where only root may go.
set -euo pipefail

user=hiatus-test
group=$(id -gn "$user")
home=$(getent passwd "$user" | cut -d: -f6)
# A short name: sockets have short paths, unix(7).
dir=$(mktemp -d /tmp/hXXXXXX)
trap 'rm -rf "$dir"' EXIT
chown "$user:$group" "$dir"
binary=$dir/${1##*/}
install -m 755 "$1" "$binary"
install -d -m 700 -o "$user" -g "$group" "$dir/run"
shift
setpriv --reuid="$user" --regid="$group" --clear-groups --inh-caps=-all -- \
	env -i HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash LANG=C.UTF-8 PATH="$PATH" \
	GOROOT="$(go env GOROOT)" TMPDIR="$dir" XDG_RUNTIME_DIR="$dir/run" "$binary" "$@"
