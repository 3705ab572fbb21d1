#!/usr/bin/env bash
# Makes the goldens anew and compares them with those in tests/data, with pinned packages in a folder that git ignores.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.tools/goldens/bin/python
if ! "$python" -c 'import numpy, safetensors' 2>/dev/null; then
    python3 -m venv .tools/goldens
    "$python" -m pip install --quiet -r tools/goldens/requirements.txt
fi
"$python" tools/goldens/make.py --check --quiet
