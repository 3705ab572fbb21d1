#!/bin/bash
# Usage: rootfs.sh FOLDER-OF-BINARIES ROOTFS
# Lays down musc-run and musc-bench with the libraries that they link, for the Containerfile.
set -euo pipefail
[ $# = 2 ] || { sed -n 2p "$0" >&2; exit 2; }
binaries=$1 root=$2
mkdir -p "$root/usr/bin" "$root/tmp" "$root/lib64"
chmod 1777 "$root/tmp"
for program in musc-run musc-bench; do
    install -m 755 "$binaries/$program" "$root/usr/bin/$program"
    strip "$root/usr/bin/$program"
    ldd "$binaries/$program" | grep -oE '/[^ ]+' | while read -r library; do
        install -D -m 755 "$library" "$root$library"
    done
done
