#!/bin/sh
# package.sh VERSION DIRECTORY: makes DIRECTORY/helios-ci-VERSION.tar.gz, with the installed tree and
# install.sh, for hosts without an IPS publisher. The same files give the same bytes.
set -eu
umask 022

here=$(cd "$(dirname "$0")" && pwd)
version=$1
out=$2
name=helios-ci-$version
# GNU's options make the archive reproducible; illumos calls that program gtar.
tar=$(command -v gtar || command -v tar)
"$tar" --version 2>/dev/null | grep -q GNU || { echo "package.sh: this needs GNU tar" >&2; exit 1; }

rm -rf "$out/$name"
mkdir -p "$out/$name"
trap 'rm -rf "$out/$name"' EXIT
"$here/install.sh" tree "$out/$name/tree" >/dev/null
cp "$here/install.sh" "$out/$name/install.sh"
sed "s/\$(VERSION)/$version/" "$here/helios-ci.p5m" >"$out/$name/helios-ci.p5m"
chmod 0755 "$out/$name/install.sh"
"$tar" --format=ustar --sort=name --mtime="@${SOURCE_DATE_EPOCH:-1767225600}" --owner=0 --group=0 --numeric-owner \
	-C "$out" -cf "$out/$name.tar" "$name"
gzip -9nf "$out/$name.tar"
echo "$out/$name.tar.gz"
