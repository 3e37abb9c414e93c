#!/bin/sh
# Builds oilskin and lays out the image's root file system: build.sh PROFILE OUT. Run by the Dockerfile and, step by step, by
# `make test`, since no container engine runs there.
set -eu
profile=$1 out=$2
cargo build --locked --profile "$profile" -p oilskin
folder=$profile
[ "$profile" = dev ] && folder=debug
binary=${CARGO_TARGET_DIR:-target}/$folder/oilskin

mkdir -p "$out/usr/bin" "$out/etc/ssl/certs" "$out/tmp"
chmod 1777 "$out/tmp"
install -m 0755 "$binary" "$out/usr/bin/oilskin"
# The libraries it links, where the loader looks for them. Names are looked up by libc itself: no NSS module is needed.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  install -D -m 0755 "$library" "$out$library"
done
cp /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/ca-certificates.crt"
echo 'oilskin:x:10001:10001::/:/sbin/nologin' >"$out/etc/passwd"
echo 'oilskin:x:10001:' >"$out/etc/group"
echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
