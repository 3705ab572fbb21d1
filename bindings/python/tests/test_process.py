"""Threads, signals, forks, pickles, and what importing the package takes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import musc
import numpy as np
import pytest
from conftest import SIZE, Picture

HERE = Path(__file__).parent


def python(code: str, *words: object, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, words)]
    # Without threads of NumPy's own.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE, timeout=seconds, env=environment)


# Work for minutes, so that what ends it is not its end. No function of Python's is called meanwhile: a signal would be seen there.
LONG = """
import sys, musc, numpy as np
tokens = np.random.default_rng(0).normal(size=(4, 60, 37 * 37, 384)).astype(np.float32)
print("ready", flush=True)
try:
    musc.mutual_scores(tokens, device="cpu")
except KeyboardInterrupt:
    print("interrupted", flush=True)
    # It goes on to be of use.
    print(musc.mutual_scores(tokens[:1, :3, :49], device="cpu").shape, flush=True)
"""


def test_ctrl_c_ends_the_work() -> None:
    with subprocess.Popen([sys.executable, "-c", LONG], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = iter(child.stdout.readline, "")
        assert next(lines) == "ready\n"
        time.sleep(2)
        began = time.monotonic()
        # Should it not stop, it is not waited for.
        killer = threading.Timer(120, child.kill)
        killer.start()
        child.send_signal(signal.SIGINT)
        told = list(lines)
        code, seconds = child.wait(60), time.monotonic() - began
        killer.cancel()
        assert (told[-2:], code) == (["interrupted\n", "(3, 49)\n"], 0), f"after {seconds:.0f} s"
        # Not the minutes of the work; a busy machine takes a while for a block of it.
        assert seconds < 60


FORK = """
import os, sys, musc, numpy as np
sys.path.insert(0, ".")
from pathlib import Path
from conftest import cloth, write_png
pictures = [cloth(number) for number in range(4)]
inspector = musc.Inspector(size=56, device="cpu")
found = inspector.inspect(pictures)
maps, page = inspector.inspect(pictures).maps, found._repr_html_()
bank = inspector.bank(pictures)
for number, image in enumerate(pictures):
    write_png(Path(sys.argv[1]) / f"{number}.png", image)
of_files = inspector.inspect(sys.argv[1])
shown = of_files._repr_html_()
# Not one thread that is not known to be missing in a fork.
tasks = Path("/proc/self/task")
names = {(task / "comm").read_text().strip() for task in tasks.iterdir() if task.name != str(os.getpid())}
print(sorted({name.rstrip("0123456789") for name in names}))
rescored = musc.rscin([1.0, 2.0], np.ones((2, 4), np.float32)).tolist()
child = os.fork()
if child == 0:
    try:
        calls = [
            lambda: inspector.inspect(pictures),
            lambda: inspector.predict(pictures, bank),
            lambda: inspector.bank(pictures),
            lambda: inspector.add_to_bank(bank, pictures),
            lambda: inspector.merge_banks([bank]),
            lambda: inspector.features(pictures),
        ]
        for call in calls:
            try:
                call()
                print("nothing was said")
            except RuntimeError as error:
                print(error)
        # The module's own threads are started anew.
        print(musc.rscin([1.0, 2.0], np.ones((2, 4), np.float32)).tolist() == rescored)
        print(np.array_equal(found.maps, maps) and len(found.regions) == 4 and found._repr_html_() == page)
        print(musc.mutual_scores(np.ones((1, 3, 9, 5), np.float32), device="cpu").shape)
        print(musc.metrics.pixel_level(np.eye(2, dtype=bool)[None], np.ones((1, 2, 2), np.float32)).auroc)
        print(of_files._repr_html_() == shown)
        again = musc.Inspector(size=56, device="cpu")
        print(np.array_equal(again.inspect(pictures).scores, found.scores))
    except BaseException as error:
        print(repr(error))
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(inspector.inspect(pictures).scores.tolist() == found.scores.tolist())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_is_told_that_it_has_no_threads(tmp_path: Path) -> None:
    done = python(FORK, tmp_path)
    assert done.returncode == 0, done.stderr
    threads, *lines = done.stdout.splitlines()
    assert threads == "['musc-', 'musc-py-']" and len(lines) == 13
    for line in lines[:6]:
        assert line.startswith("this Inspector started its threads in process ") and "a fork of it" in line
        assert "spawn" in line
    assert lines[6:] == ["True", "True", "(3, 9)", "0.5", "True", "True", "True"]


def test_other_threads_go_on_meanwhile(inspector: musc.Inspector, pictures: list[Picture]) -> None:
    inspector.inspect(pictures)
    steps, done = 0, threading.Event()

    def count() -> None:
        nonlocal steps
        while not done.is_set():
            steps += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    before, began = steps, time.monotonic()
    inspector.inspect(pictures * 4)
    took, during = time.monotonic() - began, steps - before
    done.set()
    counter.join()
    # With the lock held it would not have moved at all.
    assert during > 20 * took, f"{during} steps in {took} s"


def test_two_threads_share_an_inspector(inspector: musc.Inspector, pictures: list[Picture]) -> None:
    bank = inspector.bank(pictures)
    expected = inspector.inspect(pictures).scores, inspector.predict(pictures, bank).scores
    found: list[object] = []

    def work() -> None:
        both = inspector.inspect(pictures).scores, inspector.predict(pictures, bank).scores
        found.append(all(np.array_equal(one, two) for one, two in zip(both, expected)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 3


def test_an_inspector_is_pickled_by_its_settings(pictures: list[Picture], tmp_path: Path) -> None:
    inspector = musc.Inspector(
        size=(SIZE, 126), r=(1, 3), device="cpu", threads=1, k=[1, 2], subsets=6, seed=5, decide="share:0.2", radius=3,
        memory_limit=1 << 30, batch_size=2, cache=tmp_path, cache_bytes=1 << 20, similarity="dot", interval=(0.0, 0.5),
    )  # fmt: skip
    again = pickle.loads(pickle.dumps(inspector))
    assert again.settings == inspector.settings and len(pickle.dumps(inspector)) < 2000
    assert list(again.settings) and again.settings["decide"] == "share:0.2" and again.settings["subsets"] == 6
    np.testing.assert_array_equal(again.inspect(pictures).scores, inspector.inspect(pictures).scores)
    usual = musc.Inspector(device="cpu")
    assert usual.settings["size"] == (518, 518) and usual.weights == "built-in" and usual.patch == 14
    assert musc.Inspector(**usual.settings).settings == usual.settings
    for other in (
        {"keep_aspect": 112, "pad": True}, {"tiles": (2, 3), "match_tiles": "any"}, {"divide": 2}, {"paper": True},
        {"precision": "f32"}, {"rescoring": False}, {"decide": 0.5}, {"subsets": "all"}, {"layers": [1, 5]}, {"activation": "gelu"},
    ):  # fmt: skip
        one = musc.Inspector(device="cpu", **other)
        two = pickle.loads(pickle.dumps(one))
        assert two.settings == one.settings
        assert {name: two.settings[name] for name in other} == {
            name: "0.5" if value == 0.5 else value for name, value in other.items()
        }


def test_importing_it_is_quick_and_brings_no_numpy() -> None:
    def seconds(code: str) -> float:
        began = time.perf_counter()
        assert python(code).returncode == 0
        return time.perf_counter() - began

    code = "import musc, sys; assert 'numpy' not in sys.modules and 'pandas' not in sys.modules"
    took = min(seconds(code) for _ in range(5)) - min(seconds("pass") for _ in range(5))
    assert took < 0.3, f"{took} s"


def test_whatever_is_public_says_what_it_is() -> None:
    for name in musc.__all__:
        value = getattr(musc, name)
        assert name.startswith("__") or name == "built_in_weights" or (value.__doc__ or "").strip(), name
    for kind in (musc.Inspector, musc.Inspection, musc.Bank, musc.Region):
        assert kind.__module__ == "musc"
        for name in vars(kind):
            if not name.startswith("_"):
                assert (getattr(kind, name).__doc__ or "").strip(), f"{kind.__name__}.{name}"
    # Arrays say their type and shape.
    for name in ("scores", "raw_scores", "patch_scores", "class_tokens", "maps", "thresholds"):
        assert "[N" in getattr(musc.Inspection, name).__doc__
