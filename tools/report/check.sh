#!/usr/bin/env bash
# Opens report.html in a real browser and uses it: Debian's Chromium, driven by Playwright at pinned versions in a folder that
# git ignores. Chromium is installed where it is missing, which needs root.
#
#   tools/report/check.sh            all checks; times are printed
#   tools/report/check.sh --times    times have to be what the docs promise too: for a machine with nothing else to do
set -euo pipefail
cd "$(dirname "$0")/../.."
export CUDA_VISIBLE_DEVICES=""
chromium=${CHROMIUM:-/usr/bin/chromium}
if [ ! -x "$chromium" ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
python=.tools/report/bin/python
if ! "$python" -c 'import playwright' 2>/dev/null; then
    python3 -m venv .tools/report
    "$python" -m pip install --quiet --disable-pip-version-check -r tools/report/requirements.txt
fi
# One build for both, so that the library is compiled once.
cargo build --locked --quiet -p musc -p musc-cli --bin musc-run --example report_page
target=${CARGO_TARGET_DIR:-target}
"$python" tools/report/test_report.py --chromium "$chromium" --musc-run "$target/debug/musc-run" \
    --example "$target/debug/examples/report_page" "$@"
