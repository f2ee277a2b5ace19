#!/bin/bash
# as-user.sh BINARY [ARG...]: runs a test binary as the ordinary user of the
# tests. For `go test -exec`, whose binaries stand where only root may go.
set -euo pipefail

user=hiatus-test
home=$(getent passwd "$user" | cut -d: -f6)
dir=$(mktemp -d /tmp/ht-unit-XXXXXX)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
install -m 755 "$1" "$dir/${1##*/}"
install -d -m 700 -o "$user" "$dir/tmp" "$dir/run"
binary=$dir/${1##*/}
shift
setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups --inh-caps=-all -- \
	env -i HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash LANG=C.UTF-8 PATH="$PATH" \
	GOROOT="$(go env GOROOT)" TMPDIR="$dir/tmp" XDG_RUNTIME_DIR="$dir/run" "$binary" "$@"
