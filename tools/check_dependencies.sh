#!/usr/bin/env bash
# Licences, second versions and sources of everything that is linked, by cargo-deny and deny.toml. Installs it into `.tools`.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
if ! .tools/bin/cargo-deny --version 2>/dev/null | grep -q " $version$"; then
    # Built without optimisation: it runs for a second, and takes minutes to build.
    CARGO_TARGET_DIR=.tools/target cargo install --quiet --locked --debug --root .tools "cargo-deny@$version"
fi
.tools/bin/cargo-deny --log-level error check licenses bans sources
