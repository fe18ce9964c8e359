#!/usr/bin/env bash
# Installs what rebuilding and testing the kernels needs beyond Node: Debian's clang and lld, the emulator and libraries that run
# the arm64 addon, Chromium for the browser page, and the packages named as arguments. Nobody who only uses Freehold needs any of it.
set -euo pipefail
packages=(clang-19 lld-19 llvm-19 qemu-user libc6-arm64-cross libstdc++6-arm64-cross chromium "$@")
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
