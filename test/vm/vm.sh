#!/bin/bash
# vm.sh [-a ARCH] [-s SUITE] [-d DIR] [-m MB] [-t SECONDS] [--] COMMAND: boots a
# kernel of Debian under qemu, with the programs of Debian 12, and runs a shell
# command in it as root. DIR (default .) is /host there and the working
# directory. The exit code is the command's; 125 where the machine did not come
# so far.
#
# ARCH is amd64 or arm64.
#
# SUITE is where the kernel is from: bullseye has 5.10, bookworm 6.1,
# bookworm-backports 6.12, trixie-backports the newest.
#
# The processor is emulated: /dev/kvm is not needed. Packages are downloaded
# and unpacked under $HIATUS_VM_CACHE, and not installed. What the host needs:
#   apt-get install -y --no-install-recommends qemu-system-x86 mmdebstrap kmod cpio e2fsprogs xz-utils zstd
# and qemu-system-arm for arm64.
set -euo pipefail
export LC_ALL=C

arch=amd64 suite=bookworm share=$PWD memory=1536 seconds=900
while getopts a:s:d:m:t: option; do
	case $option in
	a) arch=$OPTARG ;;
	s) suite=$OPTARG ;;
	d) share=$(cd "$OPTARG" && pwd) ;;
	m) memory=$OPTARG ;;
	t) seconds=$OPTARG ;;
	*) exit 64 ;;
	esac
done
shift $((OPTIND - 1))

cache=${HIATUS_VM_CACHE:-${TMPDIR:-/tmp}/hiatus-vm}
kernel=$cache/kernel-$suite-$arch
packages=bash,dash,coreutils,util-linux,mount,grep,sed,mawk,findutils,procps,libc-bin,base-files,hostname,kmod,iproute2,busybox-static,perl-base,python3,strace
root=$cache/root-$arch.$(echo "$packages" | cksum | cut -d' ' -f1).ext4
mkdir -p "$cache"

case $arch in
amd64)
	qemu=(qemu-system-x86_64 -M q35 -cpu max)
	console=ttyS0
	;;
arm64) # the keys of programs are computed with a simple function: the standard one takes half of the time
	qemu=(qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on)
	console=ttyAMA0
	;;
*) exit 64 ;;
esac

for tool in "${qemu[0]}" mmdebstrap depmod cpio mke2fs xz zstd; do
	command -v "$tool" >/dev/null || PATH=$PATH:/sbin:/usr/sbin command -v "$tool" >/dev/null || {
		echo "vm.sh: no $tool: install the packages that are named at its top" >&2
		exit 125
	}
done

say() { printf '[vm %4ds] %s\n' "$SECONDS" "$*" >&2; }

mirror() {
	local first
	first=$(apt-get indextargets --format '$(REPO_URI)' | grep -v -e security -e updates | sort -u | head -n 1)
	echo "${first%/}"
}

# The apt of a suite, with a state of its own: nothing of the host's changes.
apt_of() {
	local of=$1 dir=$cache/apt-$1 key=signed-by=/usr/share/keyrings/debian-archive-keyring.gpg
	shift
	mkdir -p "$dir"/{etc/apt.conf.d,etc/preferences.d,etc/trusted.gpg.d,state/lists/partial,cache/archives/partial}
	[ -e "$dir/status" ] || : >"$dir/status"
	echo "deb [$key] $(mirror) $of main" >"$dir/etc/sources.list"
	case $of in
	*-backports) ;;
	*) echo "deb [$key] $(mirror)-security $of-security main" >>"$dir/etc/sources.list" ;;
	esac
	cat >"$dir/apt.conf" <<-END
		Dir "$dir"; Dir::Etc "etc"; Dir::State "state"; Dir::State::status "$dir/status"; Dir::Cache "cache";
		APT::Architecture "$arch"; APT::Architectures { "$arch"; }; APT::Sandbox::User "root"; Acquire::Languages "none";
	END
	APT_CONFIG=$dir/apt.conf "$@"
}

# The kernel package behind linux-image-ARCH. Newer ones are split.
get_kernel() {
	[ ! -e "$kernel/ok" ] || return 0
	rm -rf "$kernel"
	mkdir -p "$kernel/deb"
	apt_of "$suite" apt-get -qq update >&2
	local image depends part list deb
	depends=(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances)
	image=$(apt_of "$suite" "${depends[@]}" "linux-image-$arch" | sed -nE 's/.*Depends: (linux-image-[0-9].*)/\1/p' | head -n 1)
	list=$image
	for part in base binary modules; do
		if apt_of "$suite" "${depends[@]}" "$image" | grep -q -F " ${image/image/$part}"; then
			list="$list ${image/image/$part}"
		fi
	done
	say "download $list"
	# shellcheck disable=SC2086 # a list of words
	(cd "$kernel/deb" && apt_of "$suite" apt-get -qq download $list)
	for deb in "$kernel"/deb/*.deb; do
		dpkg -x "$deb" "$kernel"
	done
	rm -rf "$kernel/deb" "$cache/apt-$suite"
	[ -d "$kernel/lib" ] || ln -s usr/lib "$kernel/lib"
	depmod -b "$kernel" "$(ls "$kernel/lib/modules")"
	touch "$kernel/ok"
}

# The first file system: busybox, and the modules that lead to the second.
make_initrd() {
	[ ! -e "$kernel/initrd" ] || return 0
	local dir=$kernel/initrd.d version deb module file name
	version=$(ls "$kernel/lib/modules")
	rm -rf "$dir"
	mkdir -p "$dir"/{bin,m,proc,sys,dev,root}
	deb=$(mktemp -d "$cache/busybox.XXXXXX")
	apt_of bookworm apt-get -qq update
	(cd "$deb" && apt_of bookworm apt-get -qq download busybox-static && dpkg -x ./*.deb .)
	cp "$deb/bin/busybox" "$dir/bin/busybox"
	rm -rf "$deb" "$cache/apt-bookworm"
	for module in virtio_pci virtio_blk ext4 crc32c_generic crc32_generic 9pnet_virtio 9p virtio_console; do
		modprobe -d "$kernel" -S "$version" --show-depends "$module" 2>/dev/null || :
	done | awk '/^insmod/ && !seen[$2]++ {print $2}' | while read -r file; do
		name=$(basename "$file")
		cp "$file" "$dir/m/$name"
		case $name in
		*.xz) xz -d "$dir/m/$name"; name=${name%.xz} ;;
		*.zst) zstd -q -d --rm "$dir/m/$name"; name=${name%.zst} ;;
		esac
		echo "$name"
	done >"$dir/order"
	cat >"$dir/init" <<-'END'
		#!/bin/busybox sh
		b=/bin/busybox
		$b mount -t proc p /proc
		$b mount -t sysfs s /sys
		$b mount -t devtmpfs d /dev
		while read -r m; do $b insmod /m/$m || echo "insmod $m failed" >/dev/kmsg; done </order
		$b mount -t ext4 -o rw,noatime /dev/vda /root
		$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 host /root/host
		$b mount -t 9p -o trans=virtio,version=9p2000.L,ro mods /root/lib/modules
		for d in proc sys dev; do $b mount --move /$d /root/$d; done
		exec $b switch_root /root /bin/bash /vm-init
	END
	chmod +x "$dir/init"
	(cd "$dir" && find . | cpio -o -H newc --quiet) >"$kernel/initrd"
	rm -rf "$dir"
}

# The second: packages of Debian 12, unpacked and not configured.
make_root() {
	[ ! -e "$root" ] || return 0
	local dir
	dir=$(mktemp -d "$cache/root.XXXXXX")
	say "unpack the programs"
	mmdebstrap -q --variant=extract --architectures="$arch" --aptopt='APT::Install-Recommends "false"' \
		--aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" bookworm "$dir/d" "$(mirror)"
	ln -sf mawk "$dir/d/usr/bin/awk"
	cat >"$dir/d/etc/passwd" <<-'END'
		root:x:0:0:root:/root:/bin/bash
		hiatus-test:x:1000:1000::/home/hiatus-test:/bin/bash
		nobody:x:65534:65534::/:/bin/false
	END
	printf '%s\n' root:x:0: hiatus-test:x:1000: nogroup:x:65534: >"$dir/d/etc/group"
	echo '127.0.0.1 localhost vm' >"$dir/d/etc/hosts"
	mkdir -p "$dir/d/host" "$dir/d/lib/modules"
	install -d -m 700 -o 1000 -g 1000 "$dir/d/home/hiatus-test"
	cat >"$dir/d/vm-init" <<-'END'
		export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
		mkdir -p /dev/pts /dev/shm /dev/mqueue
		mount -t devpts -o ptmxmode=0666 devpts /dev/pts
		mount -t tmpfs -o mode=1777 shm /dev/shm
		mount -t mqueue mqueue /dev/mqueue
		mount -t tmpfs run /run
		mount -t tmpfs -o mode=1777 tmp /tmp
		mount -t cgroup2 cgroup /sys/fs/cgroup
		[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
		exec </dev/null >/dev/hvc0 2>&1
		stty raw -echo </dev/hvc0
		ldconfig
		hostname vm
		ip link set lo up
		ulimit -l unlimited
		cd /host
		setsid -w bash /host/.vm.command
		echo $? >/host/.vm.code
		sync
		echo o >/proc/sysrq-trigger
		sleep 60
	END
	truncate -s 3G "$root.new"
	mke2fs -q -t ext4 -O ^has_journal -d "$dir/d" "$root.new"
	rm -rf "$dir"
	mv "$root.new" "$root"
}

# The kernel without its compression, which takes long under emulation (PVH).
decompress() {
	[ ! -e "$kernel/vmlinux" ] || return 0
	local from=$1 at
	at=$(grep -obUaP '\xFD7zXZ\x00' "$from" | cut -d: -f1 | head -n 1)
	[ -z "$at" ] || tail -c +$((at + 1)) "$from" | xz -dc --single-stream >"$kernel/new" 2>/dev/null || :
	if [ ! -s "$kernel/new" ]; then
		at=$(grep -obUaP '\x28\xB5\x2F\xFD' "$from" | cut -d: -f1 | head -n 1)
		[ -z "$at" ] || tail -c +$((at + 1)) "$from" | zstd -dcq >"$kernel/new" 2>/dev/null || :
	fi
	[ "$(head -c 4 "$kernel/new" | tail -c 3)" = ELF ] || return 1
	mv "$kernel/new" "$kernel/vmlinux"
}

get_kernel
make_initrd
make_root
version=$(ls "$kernel/lib/modules")
boot=$(ls "$kernel/boot/vmlinuz-$version" "$kernel/lib/modules/$version/vmlinuz" 2>/dev/null | head -n 1 || :)
if [ "$arch" = amd64 ] && decompress "$boot"; then boot=$kernel/vmlinux; fi
rm -f "$share/.vm.code"
printf '%s\n' "$*" >"$share/.vm.command"
say "boot $version"
timeout -k 5 "$seconds" nice -n 10 "${qemu[@]}" -accel tcg,thread=multi -smp 2 -m "$memory" \
	-nodefaults -display none -no-reboot \
	-kernel "$boot" -initrd "$kernel/initrd" -append "console=$console quiet mitigations=off panic=-1" \
	-serial file:"$share/.vm.console" \
	-drive file="$root",if=virtio,format=raw,snapshot=on \
	-virtfs local,path="$share",mount_tag=host,security_model=passthrough \
	-virtfs local,path="$kernel/lib/modules",mount_tag=mods,security_model=none,readonly=on \
	-device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtconsole,chardev=out -device virtio-rng-pci </dev/null || :
code=$(cat "$share/.vm.code" 2>/dev/null || echo 125)
[ "$code" != 125 ] || tail -n 20 "$share/.vm.console" >&2
rm -f "$share"/.vm.{code,command,console}
say "exit code $code"
exit "$code"
