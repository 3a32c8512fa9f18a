#!/sbin/sh
# Turns a running illumos guest into a golden one; run as root inside it, beside start-agent and
# helios-agent.xml, then power off at once. NOT YET RUN on any illumos; see README.md.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin
export PATH
here=$(cd "$(dirname "$0")" && pwd)
[ "$(uname -s)" = SunOS ] || { echo "prepare: run this inside the illumos guest" >&2; exit 1; }

# One at a time, as one unknown name fails them all. pkg ends with 4 when there is nothing to do.
for package in git gnu-tar gzip xz zstd python-3 sudo ca-certificates; do
    pkg install -q "$package" || [ $? = 4 ] ||
        echo "prepare: no package $package here, or it has another name; install it by hand" >&2
done
# Without it no job gets its source.
command -v git >/dev/null || { echo "prepare: git is missing; nothing was changed but packages" >&2; exit 1; }

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
