#!/usr/bin/env bash
# A base image without a registry, for networks that reach package mirrors alone: Debian by debootstrap, and in /usr/local
# the Python that is named, as the official python image has it. Needs root, debootstrap and buildah.
#
#   images/local-base.sh <python> <image name>
set -euo pipefail

python=$1 name=$2
suite=trixie  # as in versions.yaml's images.python; the first Debian with PostgreSQL 17
libraries=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8t64,libsqlite3-0,libssl3t64,libuuid1,netbase,tzdata,zlib1g
mirror=${DEBIAN_MIRROR:-}  # debootstrap's own where unset

for tool in debootstrap buildah; do
  command -v "$tool" >/dev/null || { echo "error: $tool not found; install the package of that name" >&2; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "error: debootstrap needs root; run this with sudo" >&2; exit 3; }
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
[ "$prefix" != /usr ] || { echo "error: $python is the system's own; give one that has a prefix to itself" >&2; exit 3; }

root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT
echo "installing Debian $suite"
debootstrap --variant=minbase --include="$libraries" "$suite" "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 \
  || { tail "$root.log" >&2; exit 4; }
rm -rf "$root.log" "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
cp --archive "$prefix"/bin/"$version" "$root"/usr/local/bin/
cp --archive "$prefix"/lib/libpython*.so* "$root"/usr/local/lib/ 2>/dev/null || true  # a static Python has none
tar --create --directory "$prefix" --exclude=site-packages --exclude=test --exclude=__pycache__ --exclude='*.a' \
  "lib/$version" "include/$version" | tar --extract --directory "$root"/usr/local
ln --symbolic "$version" "$root"/usr/local/bin/python3
ln --symbolic python3 "$root"/usr/local/bin/python
# What this machine trusts, a proxy's own authority included.
cp /etc/ssl/certs/ca-certificates.crt "$root"/etc/ssl/certs/ca-certificates.crt
chroot "$root" ldconfig
chroot "$root" python -m ensurepip --default-pip >/dev/null

container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / >/dev/null
buildah config --cmd python3 --env LANG=C.UTF-8 --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet --rm "$container" "$name" >/dev/null
echo "made $name"
