#!/bin/sh
# Lays helios-ci's files. What goes where, with which mode and owner, stands in helios-ci.p5m only.
#
#   install.sh list             print it: kind, mode, owner:group, path; of a link path and target
#   install.sh tree [DIRECTORY] lay it below DIRECTORY, / by default; what `make install` does
#   install.sh host             on an illumos host without the IPS package: user, files, services
#   install.sh remove           undo `host`; configuration, data and the user stay
#
# Files come from the project, with $HELIOS_CI_BIN and $HELIOS_AGENT as the two programs, or in an unpacked
# archive from `tree` beside this script. Running it again does no harm. POSIX sh: runs without bash.
set -eu
umask 022

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
manifest=$here/helios-ci.p5m
project=$(dirname "$here")

# Splits a line of the manifest into $kind, $source, $path, $mode, $owner, $group, $target and $restart.
split() {
	set -f
	# shellcheck disable=SC2086 # the words are the point, and nothing in these lines is quoted
	set -- $1
	set +f
	kind=${1-} source='' path='' mode='' owner='' group='' target='' restart=''
	[ $# -eq 0 ] || shift
	for word; do
		case $word in
		path=*) path=${word#*=} ;;
		mode=*) mode=${word#*=} ;;
		owner=*) owner=${word#*=} ;;
		group=*) group=${word#*=} ;;
		target=*) target=${word#*=} ;;
		restart_fmri=*) restart="$restart ${word#*=}" ;;
		*=*) ;;
		*) source=$word ;;
		esac
	done
	if [ -d "$here/tree" ]; then
		source=$here/tree/$path
		return
	fi
	# shellcheck disable=SC2016 # names of pkgmogrify's, not of the shell's
	case $source in
	'$(HELIOS_CI_BIN)') source=${HELIOS_CI_BIN:-$project/target/release/helios-ci} ;;
	'$(HELIOS_AGENT)') source=${HELIOS_AGENT:-$project/target/x86_64-unknown-linux-musl/agent/helios-agent} ;;
	*) source=$project/$source ;;
	esac
}

# Calls $1 for every directory, file and link of the manifest.
each() {
	while read -r line <&3; do
		split "$line"
		case $kind in
		dir | file | link) "$1" ;;
		esac
	done 3<"$manifest"
}

listed() {
	case $kind in
	link) echo "link $path -> $target" ;;
	*) echo "$kind $mode $owner:$group $path" ;;
	esac
}

present() {
	[ "$kind" != file ] || [ -f "$source" ] || fail "$source is missing, for $path; build it, or name another"
}

lay() {
	if [ "$kind" = dir ]; then
		mkdir -p "$dest/$path"
		chmod "$mode" "$dest/$path"
		return
	fi
	mkdir -p "$(dirname "$dest/$path")"
	# Beside and then renamed: what runs keeps its old file, and nobody sees half a one.
	rm -f "$dest/$path.new"
	if [ "$kind" = link ]; then
		ln -s "$target" "$dest/$path.new"
	else
		cp "$source" "$dest/$path.new"
		chmod "$mode" "$dest/$path.new"
	fi
	mv -f "$dest/$path.new" "$dest/$path"
}

# Whose a link is means nothing.
own() {
	[ "$kind" = link ] || chown "$owner:$group" "$dest/$path"
}

unowned() {
	[ "$kind" = link ] || echo "chown $owner:$group $dest/$path"
}

tree() {
	dest=${1%/}
	each present
	each lay
	if [ "$(id -u)" = 0 ] && id -u helios-ci >/dev/null 2>&1 && getent group helios-ci >/dev/null; then
		each own
	else
		echo "Owners were not set, as this needs root and the user helios-ci. They are meant to be:"
		each unowned
	fi
}

# The program was linked on another host: this one must have its libraries, and each in a version as new.
linked() {
	[ "$path" = opt/helios-ci/bin/helios-ci ] || return 0
	libraries=$(ldd "$source") || fail "ldd cannot read $source; is it a program for this system?"
	lacking=$(echo "$libraries" | grep 'not found') || return 0
	echo "$lacking" >&2
	fail "$path needs these libraries, and this host lacks them: a file is in a package (pkg search -r NAME); a version comes with a later release, so build on the oldest that you serve"
}

global_zone() {
	[ "$(uname -s)" = SunOS ] || fail "this is no illumos host; 'tree' lays the files anywhere"
	[ "$(id -u)" = 0 ] || fail "this needs root"
	[ "$(zonename)" = global ] || fail "machines are made in the global zone; this is the zone $(zonename)"
	if pkg info application/helios-ci >/dev/null 2>&1; then
		fail "helios-ci is installed as an IPS package; use pkg update or pkg uninstall"
	fi
}

imported() {
	case $path in
	lib/svc/manifest/*) svccfg import "$dest/$path" ;;
	esac
}

# Restarts what the manifest says for this file, each service once, and none that is not running.
restarted() {
	for fmri in $restart; do
		case " $told " in
		*" $fmri "*) continue ;;
		esac
		told="$told $fmri"
		case $(svcs -H -o state "$fmri" 2>/dev/null) in
		'' | disabled) ;;
		*) svcadm restart "$fmri" ;;
		esac
	done
}

host() {
	global_zone
	each present
	each linked
	getent group helios-ci >/dev/null || groupadd helios-ci
	if ! id -u helios-ci >/dev/null 2>&1; then
		useradd -g helios-ci -c helios-ci -d /var/lib/helios-ci -s /usr/bin/false helios-ci
	fi
	# No password opens this account, and it is not locked, or its service could not start.
	passwd -N helios-ci
	tree "${DESTDIR-}"
	each imported
	# Imports were waited for, so this needs no second one.
	told=svc:/system/manifest-import:default
	each restarted
	echo "Now go on with the configuration in /opt/helios-ci/share/illumos.md, \"From a bare OmniOS to the first green"
	echo "job\": before svcadm enable -s helios-ci there is helios-ci setup to run, and an image to import."
}

removed() {
	[ "$kind" = dir ] || rm -f "$dest/$path"
}

emptied() {
	each listed | while read -r kind _ _ path; do
		[ "$kind" != dir ] || echo "$path"
	done | sort -r | while read -r path; do
		rmdir "$dest/$path" 2>/dev/null || [ ! -d "$dest/$path" ] || echo "/$path stays: it is not empty"
	done
}

remove() {
	global_zone
	dest=${DESTDIR-}
	machines=$(zoneadm list -c | sed -n '/^hci-/p')
	# shellcheck disable=SC2086 # on one line
	[ -z "$machines" ] || fail "machines of helios-ci exist; end their jobs first: "$machines
	for fmri in svc:/application/helios-ci:default svc:/application/helios-ci/machined:default; do
		if svcs -H "$fmri" >/dev/null 2>&1; then
			svcadm disable -s "$fmri"
		fi
	done
	each removed
	emptied
	# Without their manifests the services go, and without their files the rights.
	told='svc:/application/helios-ci:default svc:/application/helios-ci/machined:default'
	each restarted
	echo "Datasets, the user helios-ci, the rules of ipfilter and the entry helios-ci_logs in /etc/logadm.conf stay:"
	echo "docs/illumos-host.md, \"Leave nothing\", ends them too."
}

case ${1-} in
list) each listed ;;
tree) tree "${2-}" ;;
host) host ;;
remove) remove ;;
*) fail "usage: install.sh list | tree [DIRECTORY] | host | remove" ;;
esac
