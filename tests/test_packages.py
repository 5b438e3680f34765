"""Wheel and source archive: built, installed into empty environments, and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Builds compile all kernels: minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Prepares the process as a user's would be: outside of the checkout, nothing of it in the path.
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(command, folder) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=CLEAN, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def build(kind, source, folder) -> Path:
    """The one file that setuptools make, with the packages of this environment."""
    command = [sys.executable, "setup.py", "-q", kind, "--dist-dir", folder]
    if kind == "bdist_wheel":
        # Not the `build` folder of the checkout, from which it would take what is no longer there.
        command = [*command[:3], "build", "-b", folder / "build", *command[3:]]
    run(command, source)
    (made,) = [path for path in folder.iterdir() if path.is_file()]
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Source archive of what git knows, so that a file which is not committed is missed."""
    clone = tmp_path_factory.mktemp("clone")
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = clone / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return build("sdist", clone, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Wheel that is built from the source archive: it must hold all that a build needs."""
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (folder,) = source.iterdir()
    return build("bdist_wheel", folder, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """`bin` of a new environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", folder], folder)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    tried = subprocess.run(
        [*pip, "--dry-run", "mxnet==1.9.1"], env=CLEAN, capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"pip reaches no packages: {tried.stderr.strip()[-200:]}")
    run([*pip, f"sniper-mxnet[cpu] @ {wheel.as_uri()}"], folder)
    return folder / "bin"


def test_the_source_archive_holds_what_the_build_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "setup.py", "pyproject.toml", "README.md", "LICENSE", "SECURITY.md", "Containerfile",
        "scripts/build_backend.py", "lib/sniper/native/_native.pyx", "requirements.txt",
        "configs/faster/sniper_mobilenetv2_toy.yml", "lib/sniper/py.typed",
    ):  # fmt: skip
        assert name in names, name
    assert not any(name.startswith(("data/", "output/", ".venv/")) for name in names)


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    assert "linux_x86_64" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sniper"}
    kinds = {Path(name).suffix for name in names if name.startswith("sniper/native/")}
    assert kinds == {".py", ".pyi", ".so"}, "no sources, no headers"
    assert "sniper/recipes/sniper_mobilenetv2_toy.yml" in names
    shipped = {path.relative_to(ROOT / "lib").as_posix() for path in modules()}
    assert shipped <= set(names), shipped - set(names)


def modules():
    return (ROOT / "lib" / "sniper").rglob("*.py")


def test_the_installed_package_makes_data_trains_tests_and_detects(environment, tmp_path):
    sniper = environment / "sniper"
    assert "Everything works." in run([sniper, "doctor"], tmp_path)
    run(
        [
            sniper,
            "make-toy-data",
            "toy",
            "--train",
            "6",
            "--val",
            "3",
            "--test",
            "1",
            "--test-dev",
            "1",
        ],
        tmp_path,
    )
    common = ["--cfg", "sniper_mobilenetv2_toy", "--set", "dataset.dataset_path", "toy",
              "network.WIDTH", "0.25", "gpus", "cpu", "TRAIN.NUM_PROCESS", "1",
              "TEST.TEST_EPOCH", "1"]  # fmt: skip
    run([environment / "sniper-train", *common, "TRAIN.MAX_UPDATES", "2", "TRAIN.end_epoch", "1"],
        tmp_path)  # fmt: skip
    run([environment / "sniper-test", *common], tmp_path)
    run([sniper, "export", "--out", "model.zip", *common], tmp_path)
    pictures = sorted((tmp_path / "toy").rglob("*.jpg"))[:2]
    run([sniper, "detect", *pictures, "--model", "model.zip", "--out", "found"], tmp_path)
    assert (tmp_path / "found" / "detections.json").is_file()
    where = run([environment / "python", "-c", "import sniper; print(sniper.__file__)"], tmp_path)
    assert str(environment.parent) in where, "of the environment, not of the checkout"
