# Makes a mount namespace in which illumos's programs and files stand at their real paths, and runs a program in it.
# Arguments: the simulator, its state, an empty folder, the program and its arguments.
set -eu
sim=$1 state=$2 work=$3
shift 3
root=$state/root
mount --make-rprivate /

mkdir -p "$work/sbin" "$work/bin" "$work/lib/zones" "$work/dev" "$work/etc/zones" "$work/etc/ipf" "$work/run"
for program in zfs zpool dladm ipadm zonecfg zoneadm zlogin bhyvectl ipf ipfstat svcadm svccfg fuser dispadmin; do
	ln -s "$sim" "$work/sbin/$program"
done
for program in pfexec pkill zonename uname svcs svcprop; do
	ln -s "$sim" "$work/bin/$program"
done
ln -s "$sim" "$work/lib/zones/zoneadmd"
echo "$state" >"$work/etc/illumos-sim"
# The brand of OmniOS, as far as doctor looks at it.
mkdir -p "$work/lib/brand/bhyve" "$work/share/bhyve/firmware"
echo '<brand name="bhyve"><restartinit0>true</restartinit0></brand>' >"$work/lib/brand/bhyve/config.xml"
ln -s "$sim" "$work/lib/brand/bhyve/boot"
: >"$work/share/bhyve/firmware/BHYVE_RELEASE.fd"
: >"$work/dev/vmmctl"

for device in null zero random urandom; do
	: >"$work/dev/$device"
	mount --bind "/dev/$device" "$work/dev/$device"
done
ln -s /proc/self/fd "$work/dev/fd"
# A person's terminal.
mkdir "$work/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$work/dev/pts"
ln -s pts/ptmx "$work/dev/ptmx"
# Where guests are real, their links are taps.
if [ -e /dev/net/tun ]; then
	mkdir "$work/dev/net"
	: >"$work/dev/net/tun"
	mount --bind /dev/net/tun "$work/dev/net/tun"
fi
mkdir -p "$work/dev/zvol" "$work/dev/vmm" "$root/mnt" "$root/var/run/zones" "$root/etc/zones" "$root/etc/ipf"
mount --bind "$root/dev/zvol" "$work/dev/zvol"
mount --bind "$root/dev/vmm" "$work/dev/vmm"

overlay() { mount -t overlay overlay -o "lowerdir=$1:$2" "$2"; }
overlay "$work/sbin" /usr/sbin
overlay "$work/bin" /usr/bin
overlay "$work/lib" /usr/lib
# A test may be of another release's brand.
mount --bind "$work/lib/brand/bhyve" /usr/lib/brand/bhyve
overlay "$work/share" /usr/share
overlay "$work/etc" /etc
mount --bind "$root/etc/zones" /etc/zones
mount --bind "$root/etc/ipf" /etc/ipf
mount --bind "$root/mnt" /mnt
mount --bind "$work/run" /run
mkdir -p /run/zones
mount --bind "$root/var/run/zones" /run/zones
mount --rbind "$work/dev" /dev
exec "$@"
