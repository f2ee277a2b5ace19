#!/bin/bash
# Installs what the tests need, on Debian, and makes the ordinary user as whom
# they run. Run by anyone but root it changes nothing and says what is missing.
set -euo pipefail

user=hiatus-test

# command and the package that has it
needed="
bash bash
busybox busybox-static
clang clang
gcc gcc
gdb gdb
git git
gpg gnupg
gpg-agent gpg-agent
gzip gzip
ip iproute2
java openjdk-17-jre-headless
javac openjdk-17-jdk-headless
make make
mkfs.btrfs btrfs-progs
mkfs.ext4 e2fsprogs
mpicc.mpich libmpich-dev
mpicc.openmpi libopenmpi-dev
mpirun.mpich mpich
mpirun.openmpi openmpi-bin
nginx nginx-light
node nodejs
npm npm
octave-cli octave
parallel parallel
perl perl
python3 python3
redis-server redis-server
rustc rustc
Rscript r-base-core
screen screen
setpriv util-linux
sqlite3 sqlite3
ssh-agent openssh-client
tar tar
tmux tmux
wasm-ld lld
wat2wasm wabt
vim vim
wrk wrk
"

missing() {
	while read -r command package; do
		[ -z "$command" ] || [ -x "$(PATH=$path command -v "$command")" ] || echo "$package"
	done <<<"$needed"
	[ -e /usr/include/stdio.h ] || echo libc6-dev
	[ -e /usr/lib/rustlib/wasm32-unknown-unknown ] || echo libstd-rust-dev-wasm32
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
}

# What stands in a home directory is closed to other users.
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

packages=$(missing | sort -u)
if [ "$(id -u)" != 0 ]; then
	[ -z "$packages" ] || echo "not installed, some tests will be left out:" $packages
	echo "not root: the tests run as $(id -un) only"
	exit 0
fi
if [ -n "$packages" ]; then
	apt-get update -q
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages </dev/null
fi
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
# AssemblyScript is in no Debian package.
PATH=$path command -v asc >/dev/null || npm install --global --prefix /usr/local --no-audit --no-fund assemblyscript@0.28
