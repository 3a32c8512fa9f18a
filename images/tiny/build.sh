#!/bin/sh
# Builds the tiny guest: a golden disk (qcow2), a kernel and an initrd that boot to the agent in a
# few seconds even under emulation. Needs no privileges. Usage: build.sh [OUTPUT DIRECTORY [IMAGES DIRECTORY]]
#
# The result is also put into the images directory, as `tiny`: there `helios-ci run` finds it. Without arguments it is
# the user's cache, unless HELIOS_CI_NO_CACHE is set; with an output directory alone there is none.
#
# Everything comes from Debian packages of the configured apt sources; no maintainer script is run.
# The same packages and the same recipe give the same bytes, and nothing is built twice: the digest
# of both is kept beside the result.
set -eu
export LC_ALL=C
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
out=${1:-$project/build/images/tiny}
images=${2:-}
if [ $# = 0 ] && [ -z "${HELIOS_CI_NO_CACHE:-}" ]; then
    # One that is not absolute counts as unset, as in `helios-ci run`.
    case ${XDG_CACHE_HOME:-} in
        /*) images=$XDG_CACHE_HOME/helios-ci/images ;;
        *) case ${HOME:-} in /*) images=$HOME/.cache/helios-ci/images ;; esac ;;
    esac
fi
epoch=${SOURCE_DATE_EPOCH:-1767225600}
mib=1024

say() { echo "images/tiny: $*"; }
fail() {
    echo "images/tiny: $*" >&2
    exit 1
}

PATH=$PATH:/usr/sbin:/sbin
missing=
for tool in apt-get:apt dpkg-deb:dpkg mke2fs:e2fsprogs debugfs:e2fsprogs e2fsck:e2fsprogs qemu-img:qemu-utils cpio:cpio \
    objdump:binutils sha256sum:coreutils; do
    command -v "${tool%:*}" >/dev/null || missing="$missing ${tool%:*} (package ${tool#*:}),"
done
[ -z "$missing" ] || fail "these programs are missing, and must be installed first:${missing%,}. The packages are Debian's, \
and the guest is made of Debian's: on another system, build it on a Debian one and copy the folder"

# Puts what is in $out where a user's programs look for it: a folder named by its bytes, to which `tiny` leads, so that who
# uses the one before goes on with it until the next build. The same bytes, where one file system holds both.
publish() {
    [ -n "$images" ] || return 0
    version=tiny-$(sha256sum "$out/SHA256SUMS" | cut -c 1-16)
    if [ "$(readlink "$images/tiny" 2>/dev/null)" = "$version" ] && (cd "$images/tiny" && sha256sum --status -c SHA256SUMS); then
        say "$images/tiny has it"
        return 0
    fi
    if ! mkdir -p "$images" || ! draft=$(mktemp -d "$images/.tiny.XXXXXX"); then
        say "$images cannot be written to, so \`helios-ci run\` needs --guest $out"
        return 0
    fi
    cp -pl "$out"/* "$draft/" 2>/dev/null || cp -p "$out"/* "$draft/" || { rm -rf "$draft"; fail "cannot copy the guest to $images"; }
    chmod 0755 "$draft"
    before=$(readlink "$images/tiny" 2>/dev/null) || before=
    # Damaged, or another's that was quicker: it has the same name and gives way.
    rm -rf "${images:?}/$version"
    mv -T "$draft" "$images/$version" || { rm -rf "$draft"; fail "cannot put the guest into $images"; }
    ln -sfn "$version" "$images/.tiny.$$" && mv -T "$images/.tiny.$$" "$images/tiny" || fail "$images/tiny cannot be replaced"
    for old in "$images"/tiny-*; do
        case ${old##*/} in "$version" | "$before") ;; *) rm -rf "$old" ;; esac
    done
    say "$images/tiny has it, where \`helios-ci run\` finds it"
}

# Which packages, exactly: one line each with file name, size and digest, as apt knows them.
resolve() {
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^  Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] || return 1
    # shellcheck disable=SC2046 # Package names have no blanks.
    apt-get download --print-uris "$kernel" $(grep -v '^#' "$here/packages") 2>/dev/null | sort
}
uris=$(resolve) || uris=
if [ -z "$uris" ] && [ "$(id -u)" = 0 ]; then
    say "no package lists: running apt-get update"
    apt-get update -qq
    uris=$(resolve) || uris=
fi
recipe=$(cd "$here" && find . -type f | sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
if [ -z "$uris" ]; then
    [ -f "$out/recipe" ] && [ "$(cat "$out/recipe")" = "$recipe" ] ||
        fail "apt does not know the packages, linux-image-cloud-amd64 among them: run apt-get update (as root) and try again; \
only Debian has them"
    say "apt knows no packages; keeping $out, built by this recipe"
    publish
    exit 0
fi
digest=$( (echo "$recipe $epoch $mib"; echo "$uris" | cut -d' ' -f2-) | sha256sum | cut -d' ' -f1)
if [ -f "$out/digest" ] && [ "$(cat "$out/digest")" = "$digest" ] && (cd "$out" && sha256sum --quiet -c SHA256SUMS); then
    say "$out is up to date"
    publish
    exit 0
fi

mkdir -p "$(dirname "$out")"
cache=$(dirname "$out")/packages
mkdir -p "$cache"
work=$(mktemp -d "$(dirname "$out")/.tiny.XXXXXX")
# shellcheck disable=SC2064 # The directory as it is now.
trap "rm -rf '$work'" EXIT
trap 'exit 1' HUP INT TERM

say "fetching packages into $cache"
echo "$uris" | while read -r _uri file _size sum; do
    name=${file%%_*}
    if ! [ -f "$cache/$file" ]; then
        (cd "$work" && apt-get download -qq "$name" 2>"$work/said") ||
            fail "cannot download $name ($(grep -v '^W:' "$work/said" | tail -n 1)); is there a network? Is apt-get update needed?"
        mv "$work/$file" "$cache/$file"
    fi
    case $sum in
        SHA256:*) echo "${sum#SHA256:}  $cache/$file" | sha256sum --quiet -c - || {
            rm -f "$cache/$file"
            fail "$file has another digest than apt expects; it was removed, try again"
        } ;;
    esac
    echo "$file" >>"$work/files"
done

root=$work/root
mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$work/kernel"
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
while read -r file; do
    case $file in
        linux-image-*) dpkg-deb --fsys-tarfile "$cache/$file" | tar -xp --no-same-owner -C "$work/kernel" ;;
        *) dpkg-deb --fsys-tarfile "$cache/$file" |
            tar -xp --no-same-owner --keep-directory-symlink --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
                --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/lintian/*' -C "$root" ;;
    esac
done <"$work/files"

say "assembling the root file system"
# git over HTTP needs a dozen libraries and a network; repositories come from the node over git://.
rm -f "$root"/usr/lib/git-core/git-remote-http* "$root"/usr/lib/git-core/git-remote-ftp* \
    "$root"/usr/lib/git-core/git-http-* "$root"/usr/lib/git-core/git-imap-send
ln -sf dash "$root/usr/bin/sh"
ln -sf mawk "$root/usr/bin/awk"
mkdir -p "$root/etc/ssl/certs"
find "$root/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat >"$root/etc/ssl/certs/ca-certificates.crt"
# What Debian's own programs do not provide comes from busybox.
[ -x "$root/usr/bin/busybox" ] || fail "package busybox-static has no /bin/busybox"
"$root/usr/bin/busybox" --list | while read -r applet; do
    case $applet in
        dpkg | dpkg-deb | rpm | rpm2cpio | busybox | linuxrc) continue ;;
        init | poweroff | reboot | halt | switch_root | insmod | acpid) ln -sf ../bin/busybox "$root/usr/sbin/$applet" ;;
        *) [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet" ;;
    esac
done
for directory in dev proc sys run tmp seed root home var/tmp var/log etc/acpi/PWRF; do mkdir -p "$root/$directory"; done
chmod 0700 "$root/root" "$root/seed"
chmod 1777 "$root/tmp" "$root/var/tmp"
printf '#!/bin/sh\nexec poweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
echo 'root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$root/etc/passwd"
echo 'root:x:0:
tty:x:5:
nogroup:x:65534:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
echo helios-ci >"$root/etc/hostname"
echo 'passwd: files
group: files
hosts: files dns' >"$root/etc/nsswitch.conf"
cp -R "$here/rootfs/." "$root/"
chmod 0755 "$root/etc/init.d/rcS" "$root/usr/lib/helios-ci/start-agent" "$root/etc/acpi/PWRF/00000080"
chmod 0644 "$root/etc/inittab"
echo "$((mib * 2048))" >"$root/usr/lib/helios-ci/sectors"

say "checking that every program finds its libraries"
find "$root/usr" -type f \( -perm -u+x -o -name '*.so*' \) | sort | while read -r file; do
    objdump -p "$file" 2>/dev/null | sed -n 's/^  NEEDED *//p' | while read -r library; do
        [ -n "$(find "$root/usr/lib" "$root/usr/lib64" -name "$library" | head -n 1)" ] ||
            echo "${file#"$root"} needs $library"
    done
done >"$work/missing"
[ ! -s "$work/missing" ] || fail "libraries are missing; add their packages to images/tiny/packages:
$(cat "$work/missing")"

say "making the initrd"
initrd=$work/initrd
mkdir -p "$initrd/bin" "$initrd/lib/modules" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/root"
cp "$root/usr/bin/busybox" "$initrd/bin/busybox"
for applet in sh mount cat insmod poweroff usleep switch_root; do ln -s busybox "$initrd/bin/$applet"; done
ln -s bin "$initrd/sbin"
cp "$here/initrd/init" "$initrd/init"
chmod 0755 "$initrd/init"
while read -r module; do
    file=$(find "$work/kernel/lib/modules" -name "$module.ko")
    if [ -n "$file" ]; then
        cp "$file" "$initrd/lib/modules/"
        echo "$module" >>"$initrd/lib/modules/order"
    else
        grep -q "/$module.ko\$" "$work"/kernel/lib/modules/*/modules.builtin || fail "the kernel has no module $module"
    fi
done <"$here/initrd/modules"

say "making the disk"
find "$root" "$initrd" -exec touch -h -d "@$epoch" {} +
result=$work/result
mkdir "$result"
# Not compressed: emulated processors unpack slower than QEMU loads.
(cd "$initrd" && find . | sort | cpio --quiet -o -H newc --reproducible --owner=+0:+0) >"$result/initrd.img"
cp "$work"/kernel/boot/vmlinuz-* "$result/vmlinuz"
export E2FSPROGS_FAKE_TIME="$epoch"
uuid=68656c69-6f73-4369-8000-74696e790000
truncate -s "${mib}M" "$work/disk.raw"
mke2fs -q -F -t ext4 -L helios-tiny -U "$uuid" -E "hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0,nodiscard" \
    -O '^metadata_csum_seed' -m 0 -b 4096 -N 65536 -J size=4 -d "$root" "$work/disk.raw"
# Owner and times as they should be, whoever builds and whenever.
(cd "$root" && find . -printf '%P\n' | sort) | while read -r path; do
    for field in "uid 0" "gid 0" "atime @$epoch" "ctime @$epoch" "crtime @$epoch"; do
        echo "sif \"/$path\" $field"
    done
    # The parts of a second that the fields above leave.
    for field in atime_extra ctime_extra crtime_extra; do echo "sif \"/$path\" $field 0"; done
done >"$work/owners"
debugfs -w -f "$work/owners" "$work/disk.raw" >"$work/debugfs.log" 2>&1 || fail "debugfs failed: $(tail -n 3 "$work/debugfs.log")"
if grep -v '^debugfs' "$work/debugfs.log" | grep -q .; then
    fail "debugfs complained: $(grep -v '^debugfs' "$work/debugfs.log" | head -n 3)"
fi
e2fsck -f -n "$work/disk.raw" >"$work/fsck.log" 2>&1 || fail "the new file system is not clean: $(tail -n 5 "$work/fsck.log")"
qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$result/disk.qcow2"
chmod 0444 "$result"/*
(cd "$result" && sha256sum disk.qcow2 initrd.img vmlinuz >SHA256SUMS)
echo "$uris" | cut -d' ' -f2- >"$result/packages"
echo "$recipe" >"$result/recipe"
echo "$digest" >"$result/digest"
rm -rf "$out.old"
[ ! -e "$out" ] || mv "$out" "$out.old"
mv "$result" "$out"
rm -rf "$out.old"
say "made $out: $(du -h "$out/disk.qcow2" | cut -f1) disk, $(du -h "$out/initrd.img" | cut -f1) initrd"
cat "$out/SHA256SUMS"
publish
