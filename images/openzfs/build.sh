#!/bin/sh
# Builds the OpenZFS guest: a kernel and an initrd with the modules and programs of OpenZFS, in which tests run
# our own code against real ZFS. Needs no privileges. Usage: build.sh [OUTPUT DIRECTORY]
#
# The kernel is the one of the tiny guest; the modules are built from Debian's zfs-dkms (section contrib), which
# takes minutes and is done once for each kernel and each version of ZFS. apt works with lists and sources of its
# own below the output directory: the system's stay as they are. Nothing is built twice: the digest of the recipe
# is kept beside the result. Newer packages come in by removing the output directory.
set -eu
export LC_ALL=C
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
out=${1:-$project/build/openzfs}
mirror=${HELIOS_CI_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${HELIOS_CI_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "images/openzfs: $*"; }
fail() {
    echo "images/openzfs: $*" >&2
    exit 1
}

PATH=$PATH:/usr/sbin:/sbin
recipe=$(cd "$here" && find . -type f | sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
digest=$(echo "$recipe $mirror $security" | sha256sum | cut -d' ' -f1)
if [ -f "$out/digest" ] && [ "$(cat "$out/digest")" = "$digest" ] && (cd "$out" && sha256sum --quiet -c SHA256SUMS); then
    say "$out is up to date"
    exit 0
fi
for tool in apt-get apt-cache dpkg-deb make gcc cpio objdump strip sha256sum; do
    command -v "$tool" >/dev/null || fail "$tool is missing; install apt, dpkg, build-essential, cpio and coreutils"
done

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/.build.XXXXXX")
# shellcheck disable=SC2064 # The directory as it is now.
trap "rm -rf '$work'" EXIT
trap 'exit 1' HUP INT TERM

say "asking $mirror what there is"
mkdir -p "$out/packages" "$work/lists/partial" "$work/cache/archives/partial"
signed=
[ ! -f "$keyring" ] || signed="[signed-by=$keyring] "
cat >"$work/sources.list" <<SOURCES
deb $signed$mirror $suite main contrib
deb $signed$mirror $suite-updates main contrib
deb $signed$security $suite-security main contrib
SOURCES
cat >"$work/apt.conf" <<APT
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
APT
export APT_CONFIG="$work/apt.conf"
apt-get update -qq || fail "apt-get update failed; is $mirror reachable?"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^  Depends: linux-image-\([0-9].*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || fail "apt knows no kernel linux-image-cloud-amd64"
release=${kernel%-cloud-amd64}
zfs=$(apt-cache show zfs-dkms | sed -n 's/^Version: //p' | head -n 1)
[ -n "$zfs" ] || fail "apt knows no zfs-dkms in section contrib of $mirror"

# Downloads packages, each once, with the digest that apt expects, and writes their files' names to $work/files.
fetch() {
    : >"$work/files"
    apt-get download --print-uris "$@" >"$work/uris" || fail "apt does not know all of: $*"
    while read -r _uri file _size sum; do
        if ! [ -f "$out/packages/$file" ]; then
            (cd "$work" && apt-get download -qq "${file%%_*}") || fail "cannot download $file"
            mv "$work/$file" "$out/packages/$file"
        fi
        echo "${sum#SHA256:}  $out/packages/$file" | sha256sum --quiet -c - || {
            rm -f "$out/packages/$file"
            fail "$file has another digest than apt expects; it was removed, try again"
        }
        echo "$out/packages/$file" >>"$work/files"
    done <"$work/uris"
}
unpack() {
    mkdir -p "$1"
    while read -r file; do
        dpkg-deb --fsys-tarfile "$file" | tar -xp --no-same-owner --keep-directory-symlink -C "$1"
    done <"$work/files"
}

modules=$out/modules/$kernel-$zfs
if ! [ -f "$modules/zfs.ko" ]; then
    say "building the modules of OpenZFS $zfs for $kernel; this takes minutes"
    fetch "linux-headers-$kernel" "linux-headers-$release-common" "linux-kbuild-${kernel%%.0-*}" zfs-dkms
    unpack "$work/headers"
    # The headers name each other by the paths of an installed system.
    objects=$work/headers/usr/src/linux-headers-$kernel
    grep -rlIE '/usr/(src/linux-headers|lib/linux-kbuild)' "$work/headers/usr/src" --include=Makefile --include=.kernelvariables |
        xargs -r sed -i -E "s#(^|[^.a-z])/usr/(src/linux-headers|lib/linux-kbuild)#\\1$work/headers/usr/\\2#g"
    source=$(find "$work/headers/usr/src" -maxdepth 1 -name 'zfs-*')
    (
        cd "$source"
        ./configure --quiet --with-config=kernel --with-linux="$work/headers/usr/src/linux-headers-$release-common" \
            --with-linux-obj="$objects" && make -s -j"$(nproc)"
    ) >"$work/build.log" 2>&1 || {
        cp "$work/build.log" "$out/build.log"
        fail "the modules cannot be built: $(tail -n 5 "$work/build.log"); all of it is in $out/build.log"
    }
    mkdir -p "$work/modules"
    find "$source" -name '*.ko' -exec cp {} "$work/modules/" \;
    strip --strip-debug "$work"/modules/*.ko
    [ -f "$work/modules/zfs.ko" ] || fail "the build made no zfs.ko"
    mkdir -p "$out/modules"
    rm -rf "$modules"
    mv "$work/modules" "$modules"
fi

say "making the initrd"
# shellcheck disable=SC2046 # Package names have no blanks.
fetch "linux-image-$kernel"
unpack "$work/kernel"
# shellcheck disable=SC2046 # Package names have no blanks.
fetch $(grep -v '^#' "$here/packages")
initrd=$work/initrd
mkdir -p "$initrd/usr/bin" "$initrd/usr/sbin" "$initrd/usr/lib" "$initrd/usr/lib64"
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$initrd/$directory"; done
unpack "$initrd"
rm -rf "$initrd"/usr/share "$initrd"/usr/lib/python3* "$initrd"/etc "$initrd"/usr/lib/systemd "$initrd"/usr/lib/x86_64-linux-gnu/gconv
# Only the two programs, so that what is checked below is what is used.
find "$initrd/usr/sbin" -type f ! -name zfs ! -name zpool -delete
mkdir -p "$initrd/etc" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/run" "$initrd/tmp" "$initrd/lib/modules"
rm -rf "$initrd/var"
mkdir "$initrd/var"
ln -s ../run "$initrd/var/run"
for applet in sh mount cat insmod ln poweroff; do ln -sf busybox "$initrd/bin/$applet"; done
[ -x "$initrd/usr/lib/udev/zvol_id" ] || fail "zfsutils-linux has no /lib/udev/zvol_id"
cp "$here/init" "$initrd/init"
chmod 0755 "$initrd/init"
while read -r module; do
    file=$(find "$work/kernel/lib/modules" "$modules" -name "$module.ko")
    [ -n "$file" ] || fail "neither the kernel nor ZFS has a module $module"
    cp "$file" "$initrd/lib/modules/"
    echo "$module" >>"$initrd/lib/modules/order"
done <"$here/modules"

say "checking that every program finds its libraries"
find "$initrd/usr/sbin" "$initrd/usr/lib/x86_64-linux-gnu" "$initrd/usr/lib/udev/zvol_id" -type f | sort | while read -r file; do
    objdump -p "$file" 2>/dev/null | sed -n 's/^  NEEDED *//p' | while read -r library; do
        [ -n "$(find "$initrd/usr/lib" "$initrd/usr/lib64" -name "$library" | head -n 1)" ] ||
            echo "${file#"$initrd"} needs $library"
    done
done >"$work/missing"
[ ! -s "$work/missing" ] || fail "libraries are missing; add their packages to images/openzfs/packages:
$(cat "$work/missing")"

result=$work/result
mkdir "$result"
# Not compressed: emulated processors unpack slower than QEMU loads.
(cd "$initrd" && find . | sort | cpio --quiet -o -H newc --reproducible --owner=+0:+0) >"$result/initrd.img"
cp "$work"/kernel/boot/vmlinuz-* "$result/vmlinuz"
chmod 0444 "$result"/*
(cd "$result" && sha256sum initrd.img vmlinuz >SHA256SUMS)
# The digest comes last: without it nothing here counts.
rm -f "$out/digest"
mv -f "$result/initrd.img" "$result/vmlinuz" "$result/SHA256SUMS" "$out/"
echo "$digest" >"$out/digest"
say "made $out: OpenZFS $zfs on $kernel, $(du -h "$out/initrd.img" | cut -f1) initrd"
