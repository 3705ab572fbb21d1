#!/usr/bin/env bash
# Builds the Python wheel, installs it beside pinned packages into a folder that git ignores, runs its tests, and holds its types
# against what it is. The numbers are held against those of musc-run, which is built where MUSC_RUN names none.
#
#   tools/python/check.sh                   the profile dev: optimised, with checks on
#   PROFILE=release tools/python/check.sh   the wheel as it is published
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
profile=${PROFILE:-dev}
tools=.tools/python
if ! cmp -s tools/python/requirements.txt "$tools/installed"; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check -r tools/python/requirements.txt
    cp tools/python/requirements.txt "$tools/installed"
fi
# The same features of the library as the programs have: it is compiled once for both.
[ -n "${MUSC_RUN:-}" ] || cargo build --locked --quiet -p musc-cli --bin musc-run
export MUSC_RUN=${MUSC_RUN:-$root/${CARGO_TARGET_DIR:-target}/debug/musc-run}
wheels=$tools/wheels
rm -rf "$wheels"
PATH=$root/$tools/bin:$PATH maturin build --locked --quiet --profile "$profile" --manifest-path bindings/python/Cargo.toml \
    --interpreter "$tools/bin/python" --out "$wheels"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheels"/*.whl
# From elsewhere, so that the package is the installed one.
cd bindings/python/tests
python=$root/$tools/bin/python
"$python" -m pytest --quiet --strict-markers "$@"
mypy=("$python" -m mypy --config-file ../pyproject.toml)
"${mypy[@]}" -p musc
"${mypy[@]}" ../tests ../examples
"$python" -m mypy.stubtest musc
stat --printf 'wheel: %s bytes, ' "$root/$wheels"/*.whl
"$python" - <<'END'
import subprocess, sys, time

def seconds(code):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began

bare, whole = (min(seconds(code) for _ in range(5)) for code in ("pass", "import musc"))
print(f"import musc: {(whole - bare) * 1000:.0f} ms")
END
