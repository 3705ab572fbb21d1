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
MUSC_RUN=$(realpath "${MUSC_RUN:-${CARGO_TARGET_DIR:-target}/debug/musc-run}")
export MUSC_RUN
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
# With what the wheel asks for and nothing else.
python3 -m venv --clear "$root/$tools/clean"
"$root/$tools/clean/bin/python" -m pip install --quiet --disable-pip-version-check "$root/$wheels"/*.whl
"$root/$tools/clean/bin/python" - <<'END'
import musc
import numpy as np

frames = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)
found = musc.Inspector(size=56, device="cpu").inspect(frames)
assert len(found) == 3 and "<figure" in found._repr_html_()
try:
    found.to_pandas()
except ImportError as error:
    assert "pip install pandas" in str(error), error
else:
    raise AssertionError("pandas was not asked for")
END
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
