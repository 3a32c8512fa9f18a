#!/bin/sh
# Builds the full Debian 12 guest: one golden disk (qcow2) with systemd that boots through UEFI firmware
# without any stored variables. Usage: build.sh [OUTPUT DIRECTORY]
#
# mmdebstrap installs the packages: as root in a mount namespace, for anyone else in a user namespace
# (package uidmap and a line in /etc/subuid). The disk is put together from files: no loop device and no
# mount. Nothing is built twice: the digest of the recipe is kept beside the result. Newer packages
# come in by removing the output directory.
set -eu
export LC_ALL=C
umask 022

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
out=${1:-$project/build/images/debian}
mirror=${HELIOS_CI_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${HELIOS_CI_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}"
suite=bookworm
esp_mib=128
root_mib=2048
root_uuid=68656c69-6f73-4369-8000-64656269616e
disk_id=68656C69-6F73-4369-8001-64656269616E
root_id=68656C69-6F73-4369-8002-64656269616E
esp_id=68656C69-6F73-4369-8003-64656269616E
cmdline="root=UUID=$root_uuid rw quiet panic=-1 fsck.mode=skip systemd.gpt_auto=0 console=ttyS0,115200n8"

say() { echo "images/debian: $*"; }
fail() {
    echo "images/debian: $*" >&2
    exit 1
}

PATH=$PATH:/usr/sbin:/sbin
recipe=$(cd "$here" && find . -type f ! -name '*.md' | sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
digest=$(echo "$recipe $SOURCE_DATE_EPOCH $mirror $security" | sha256sum | cut -d' ' -f1)
if [ -f "$out/digest" ] && [ "$(cat "$out/digest")" = "$digest" ] && (cd "$out" && sha256sum --quiet -c SHA256SUMS); then
    say "$out is up to date"
    exit 0
fi

for tool in mmdebstrap mke2fs e2fsck mkfs.vfat mcopy sfdisk qemu-img tar sha256sum fakeroot; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing; install mmdebstrap, e2fsprogs, dosfstools, mtools, fdisk, qemu-utils and fakeroot"
done
# Who is not root is so in fakeroot's eyes while the file system is made: owners and modes are kept.
as_root=
[ "$(id -u)" = 0 ] || as_root=fakeroot

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/.debian.XXXXXX")
# shellcheck disable=SC2064 # The directory as it is now.
trap "rm -rf '$work'" EXIT
trap 'exit 1' HUP INT TERM

say "installing packages with mmdebstrap"
chmod 0755 "$work"
mmdebstrap --quiet --variant=minbase --architectures=amd64 \
    --include="$(grep -v '^#' "$here/packages" | paste -sd,)" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"' \
    --essential-hook="copy-in '$here/initramfs/conf' /etc/initramfs-tools/conf.d" \
    --essential-hook="copy-in '$here/initramfs/modules' /usr/share/initramfs-tools/modules.d" \
    "$suite" "$work/root.tar" \
    "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main"

say "assembling the disk"
cat >"$work/assemble" <<'ASSEMBLE'
set -eu
umask 022
root=$work/root
mkdir "$root"
# The kernel lays the device files; those of the tar would need more than fakeroot.
tar -xpf "$work/root.tar" --numeric-owner --exclude='./dev/*' -C "$root"
# Ours belong to root, whoever checked them out.
tar -C "$here/rootfs" --owner=0 --group=0 --mode=u=rwX,go=rX -cf - . | tar -xp --keep-directory-symlink -C "$root" -f -
chmod 0755 "$root/usr/lib/helios-ci/seed"

# What must differ between machines is not in the disk.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed" "$root"/etc/ssh/ssh_host_* \
    "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
echo helios-ci >"$root/etc/hostname"
: >"$root/root/.hushlogin"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
echo "UUID=$root_uuid / ext4 rw,noatime,x-systemd.growfs 0 0" >"$root/etc/fstab"

wants=$root/etc/systemd/system
mkdir -p "$wants/multi-user.target.wants"
for unit in helios-seed helios-agent; do
    ln -sf "../$unit.service" "$wants/multi-user.target.wants/$unit.service"
done
ln -sf /lib/systemd/system/systemd-networkd.service "$wants/multi-user.target.wants/systemd-networkd.service"
# A job's machine lives for minutes and has no Internet: nothing waits for a network or tidies up.
for unit in systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount; do
    ln -sf /dev/null "$wants/$unit"
done

boot=$work/esp
mkdir -p "$boot/EFI/BOOT" "$boot/loader/entries"
cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$boot/EFI/BOOT/BOOTX64.EFI"
cp "$root"/boot/vmlinuz-* "$boot/vmlinuz"
cp "$root"/boot/initrd.img-* "$boot/initrd.img"
printf 'default debian.conf\ntimeout 0\neditor yes\n' >"$boot/loader/loader.conf"
printf 'title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions %s\n' "$cmdline" >"$boot/loader/entries/debian.conf"
sed -n 's/^Package: //p; s/^Version: //p' "$root/var/lib/dpkg/status" | paste -d' ' - - | sort >"$work/packages"
find "$root" "$boot" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

export E2FSPROGS_FAKE_TIME="$SOURCE_DATE_EPOCH"
truncate -s "${root_mib}M" "$work/root.img"
mke2fs -q -F -t ext4 -L helios-debian -U "$root_uuid" -m 1 -b 4096 -O '^metadata_csum_seed' \
    -E "hash_seed=$root_uuid,lazy_itable_init=0,lazy_journal_init=0,nodiscard" -d "$root" "$work/root.img"
ASSEMBLE
export work here root_uuid root_mib cmdline
$as_root sh "$work/assemble"
e2fsck -f -n "$work/root.img" >"$work/fsck.log" 2>&1 || fail "the new file system is not clean: $(tail -n 5 "$work/fsck.log")"

truncate -s "${esp_mib}M" "$work/esp.img"
mkfs.vfat -F 32 -n ESP -i 68654349 --invariant "$work/esp.img" >/dev/null
mcopy -s -m -i "$work/esp.img" "$work"/esp/* ::

truncate -s "$((esp_mib + root_mib + 2))M" "$work/disk.raw"
sfdisk --quiet "$work/disk.raw" <<TABLE
label: gpt
label-id: $disk_id
start=1MiB, size=${esp_mib}MiB, type=uefi, uuid=$esp_id, name=esp
start=$((esp_mib + 1))MiB, size=${root_mib}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=$root_id, name=root
TABLE
dd if="$work/esp.img" of="$work/disk.raw" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.img" of="$work/disk.raw" bs=1M seek=$((esp_mib + 1)) conv=notrunc,sparse status=none

result=$work/result
mkdir "$result"
qemu-img convert -f raw -O qcow2 "$work/disk.raw" "$result/disk.qcow2"
chmod 0444 "$result/disk.qcow2"
(cd "$result" && sha256sum disk.qcow2 >SHA256SUMS)
mv "$work/packages" "$result/packages"
echo "$recipe" >"$result/recipe"
echo "$digest" >"$result/digest"
rm -rf "$out.old"
[ ! -e "$out" ] || mv "$out" "$out.old"
mv "$result" "$out"
rm -rf "$out.old"
say "made $out: $(du -h "$out/disk.qcow2" | cut -f1) disk, $(wc -l <"$out/packages") packages"
cat "$out/SHA256SUMS"
