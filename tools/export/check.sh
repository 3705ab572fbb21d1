#!/usr/bin/env bash
# Exports the regions of the demo's images and gives the files to those who read them: pycocotools decodes every polygon, Label
# Studio's tasks are held to its documented form, FiftyOne's folder to the layout that its importer reads. With pinned packages in
# a folder that git ignores.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.tools/export/bin/python
if ! "$python" -c 'import jsonschema, numpy, PIL, pycocotools, safetensors' 2>/dev/null; then
    python3 -m venv .tools/export
    "$python" -m pip install --quiet -r tools/export/requirements.txt
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run=${MUSC_RUN:-cargo run --locked --quiet -p musc-cli --bin musc-run --}
$run demo --img-resize 224 --output-dir "$out" --quiet >"$out/demo.log"
# A third of the images get other proportions, so that some are letterboxed.
"$python" - "$out/demo/images" <<'END'
import sys
from pathlib import Path
from PIL import Image

for at, path in enumerate(sorted(Path(sys.argv[1]).rglob("*.jpg"))):
    if at % 3 == 0:
        Image.open(path).crop((0, 40, 250, 200) if at % 2 else (60, 0, 210, 250)).save(path, quality=95)
END
for rule in gap mebin; do
    # Once with both sides on their own, once letterboxed: there regions are moved as well as scaled.
    for size in "--img-size 224x280" "--keep-aspect 224 --pad"; do
        $run "$out/demo/images" $size --decide "$rule" --export coco,labelstudio,fiftyone --vis False --save-maps --overwrite \
            --output-dir "$out" --quiet >"$out/run.log"
        "$python" tools/export/check.py "$out/folder/images" $(case $size in *pad*) echo --pad ;; esac)
    done
done
