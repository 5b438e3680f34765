"""Runs of main_test.py on small sets, in this process and in others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from sniper.errors import DataError
from sniper.inference.block_store import BlockStore
from sniper.tools.test import main as run_test
from tests.child_output import output_file

LIB = Path(__file__).resolve().parents[2] / "lib"
RESULTS = "detections_{}_results.json"
START_LIMIT_S = 120


class Runs:
    """Test runs of one trained network on small sets, each in an output folder of its own."""

    def __init__(self, tiny, trained):
        self.tiny, self.trained = tiny, trained
        self.number = 0
        self._plain = {}
        for count in (1, 3, 5):
            self.make_set(f"first{count}", count)

    def make_set(self, name, count):
        """The first images of the training set, as a set with another name."""
        toy = self.tiny.root / "toy"
        content = json.loads((toy / "annotations" / "instances_train.json").read_text())
        content["images"] = content["images"][:count]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [e for e in content["annotations"] if e["image_id"] in ids]
        (toy / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
        if not (toy / "images" / name).exists():
            (toy / "images" / name).symlink_to(toy / "images" / "train")

    def new_output(self):
        """An output folder with the trained weights."""
        self.number += 1
        output = self.tiny.root / f"jobs_{self.number}"
        folder = output / "tiny" / "train"
        folder.mkdir(parents=True)
        for path in self.trained.glob("SNIPER-0002.params"):
            shutil.copy(path, folder)
        shutil.copy(self.trained / "classes.json", folder)
        return output

    def arguments(self, output, name, *overrides):
        cfg = ["--cfg", str(self.tiny.cfg), "--set", "output_path", str(output)]
        return [*cfg, "dataset.test_image_set", name, *map(str, overrides)]

    def results(self, output, name):
        return (output / "results" / RESULTS.format(name)).read_bytes()

    def run(self, name, *overrides):
        """The result file of a run in an output folder of its own."""
        output = self.new_output()
        assert run_test(self.arguments(output, name, *overrides)) == 0
        assert not list((output / "results").glob("partial_*"))
        return self.results(output, name)

    def plain(self, name):
        """The result file of a run as the recipe has it."""
        if name not in self._plain:
            self._plain[name] = self.run(name)
        return self._plain[name]


def batches(*numbers):
    return ("TEST.BATCH_IMAGES", list(numbers))


def jobs(number):
    return ("TEST.CONCURRENT_JOBS", number)


def interrupted(runs, name, monkeypatch, *overrides, blocks=2):
    """An output folder with so many finished blocks of one image each."""
    original, saved = BlockStore.save, []

    def save(self, *arguments):
        if len(saved) == blocks:
            raise DataError("enough")
        saved.append(original(self, *arguments))

    output = runs.new_output()
    with monkeypatch.context() as patch:
        patch.setattr(BlockStore, "save", save)
        assert run_test(runs.arguments(output, name, *overrides)) == 3
    return output


# A run whose blocks have one image each; {patch} may use `mark`.
SCRIPT = """
import os, sys, time
from pathlib import Path
from sniper.runs import detect_set
detect_set._BLOCK_IMAGES = (1, 1)

def mark(*words):
    with open({marker!r}, "a") as marker:
        print(*words, file=marker)

{patch}
from sniper.tools.test import main
sys.exit(main({arguments!r}))
"""
# Notes which images go through the network, and pauses after each block.
WATCHED = """
from sniper.inference.detector import Detector
original = Detector.detect

def watched(self, records, **options):
    mark(*(record.image_id for record in records))
    found = original(self, records, **options)
    time.sleep({pause})
    return found

Detector.detect = watched
"""


class Started:
    """A run of main_test.py in a process group of its own."""

    def __init__(self, runs, folder, output, name, overrides, patch):
        self.marker = folder / f"marker_{time.monotonic_ns()}"
        self.output = output
        script = SCRIPT.format(
            marker=str(self.marker), patch=patch, arguments=runs.arguments(output, name, *overrides)
        )
        self._errors = output_file(folder / f"errors_{time.monotonic_ns()}")
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(LIB)},
        )

    @property
    def errors(self):
        self._errors.seek(0)
        return self._errors.read()

    @property
    def detected(self):
        """Ids of the images that went through the network, in order."""
        return [int(word) for word in self.marker.read_text().split()]

    def blocks(self):
        return list((self.output / "results").glob("partial_*/*/block_*.npz"))

    def workers(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in path.read_text().split()]

    def wait_until(self, happened):
        end = time.monotonic() + START_LIMIT_S
        while not happened():
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < end, "the run did not get so far:\n" + self.errors
            time.sleep(0.02)

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._errors.close()
