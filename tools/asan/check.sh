#!/usr/bin/env bash
# The CPU backend under AddressSanitizer (cpu.rs). The sanitizer is a switch of the compiler that stable Rust keeps for itself, hence
# RUSTC_BOOTSTRAP; nothing else of this build is used anywhere.
set -euo pipefail
cd "$(dirname "$0")/../.."
triple=x86_64-unknown-linux-gnu out=target/asan
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_INCREMENTAL=0
# Little optimised: sizes are tiny, and compiling takes longer than running.
cargo build -q --locked -p musc --no-default-features --lib --target $triple --target-dir $out \
    --config profile.dev.opt-level=1 --config 'profile.dev.package."*".opt-level=1'
rustc --edition 2024 -O -Zsanitizer=address --target $triple -L dependency=$out/$triple/debug/deps -L dependency=$out/debug/deps \
    --extern musc=$out/$triple/debug/libmusc.rlib -o $out/cpu tools/asan/cpu.rs
ASAN_OPTIONS=detect_leaks=1 $out/cpu

