#!/sbin/sh
# Turns a running illumos guest into a golden one; run as root inside it, beside start-agent and
# helios-agent.xml, then power off at once. NOT YET RUN on any illumos; see README.md.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin
export PATH
here=$(cd "$(dirname "$0")" && pwd)
[ "$(uname -s)" = SunOS ] || { echo "prepare: run this inside the illumos guest" >&2; exit 1; }

# What steps use: git for every job's source, the others for archives, caches and rights. Both systems name them in
# full, as a short name may match several packages; they differ in the certificate authorities. Neither needs a
# package for Python, in which pkg itself is written.
packages="developer/versioning/git archiver/gnu-tar compress/gzip compress/xz compress/zstd security/sudo"
system=$(sed -n '1s/^ *//p' /etc/release 2>/dev/null) || system="no such file"
case $system in
OmniOS*) packages="$packages web/ca-bundle" ;;
OpenIndiana*) packages="$packages crypto/ca-certificates" ;;
*)
    echo "prepare: /etc/release: $system; uname -v: $(uname -v). This script knows the packages of OmniOS" \
        "and OpenIndiana; add this system's by the names that pkg search prints" >&2
    exit 1
    ;;
esac
# One at a time, so that each that cannot be had is named. pkg ends with 4 when there is nothing to do.
missing=
for package in $packages; do
    pkg install -q "$package" || [ $? = 4 ] || missing="$missing $package"
done
[ -z "$missing" ] || { echo "prepare: pkg cannot install$missing; nothing was changed but packages" >&2; exit 1; }
for program in git python3; do
    command -v "$program" >/dev/null ||
        { echo "prepare: $program is missing; nothing was changed but packages" >&2; exit 1; }
done

cp "$here/start-agent" /lib/svc/method/helios-agent
chmod 0555 /lib/svc/method/helios-agent
mkdir -p /var/svc/manifest/site
cp "$here/helios-agent.xml" /var/svc/manifest/site/helios-agent.xml
svccfg validate /var/svc/manifest/site/helios-agent.xml
# Imported at the next boot, which is the first job's: it must not start now.

# The console on the serial port, for the loader and for the system.
mkdir -p /boot/conf.d
printf 'console="ttya"\nos_console="ttya"\nttya-mode="115200,8,n,1,-"\nautoboot_delay="0"\n' >/boot/conf.d/helios-ci

# Nothing waits for a network or listens on one, and nobody else reads the seed disk. What is not there
# cannot be disabled.
for service in ssh network/routing-setup network/ntp system/cloud-init cloud-init:init-local smtp:sendmail; do
    svcadm disable "$service" 2>/dev/null || echo "prepare: no service $service"
done

# What must differ between machines.
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /etc/dhcp/*.dhc
rm -rf /var/lib/cloud /var/log/cloud-init*.log
ipadm show-addr -p -o addrobj | grep -v '^lo0/' | while read -r address; do ipadm delete-addr "$address"; done
zpool set autoexpand=on rpool
sync
echo "prepare: done; power off now with: poweroff"
