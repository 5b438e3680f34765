"""The CPU image of `Containerfile`: built without a registry, and a picture detected in it.

Its base is made by mmdebstrap from the distribution's packages; buildah builds without a daemon.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sniper.tools.export import main as export_main

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
# As root in a container: no overlay, no namespaces.
SETTINGS = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
# How pip and apt of the host reach their packages, where that is special.
HOST_FILES = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **SETTINGS},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    if missing or os.geteuid():
        pytest.skip(f"needs root and {' and '.join(missing or ['nothing else'])}")
    tarball = tmp_path_factory.mktemp("base") / "base.tar"
    made = subprocess.run(
        ["mmdebstrap", "-q", "--variant=minbase", "--include=ca-certificates", SUITE, tarball],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no packages of the distribution: {made.stderr.strip()[-200:]}")
    container = run("buildah", "from", "scratch")
    run("buildah", "add", "-q", container, tarball, "/")
    run("buildah", "commit", "-q", "--rm", container, "localhost/sniper-test-base")
    volumes = [f"--volume={path}:{path}:ro" for path in HOST_FILES if Path(path).exists()]
    run(
        *("buildah", "build", "-q", "--network=host", *volumes, "-f", "Containerfile"),
        *("--build-arg", "BASE=localhost/sniper-test-base", "-t", "localhost/sniper-test", "."),
    )
    yield "localhost/sniper-test"
    run("buildah", "rmi", "localhost/sniper-test", "localhost/sniper-test-base")


def test_the_demo_runs_in_the_image(image, tiny, trained, tmp_path):
    """With an archive and a picture of the working folder, as a user would mount it."""
    assert export_main(["--cfg", str(tiny.cfg), "--out", str(tmp_path / "model.zip")]) == 0
    shutil.copy(ROOT / "data" / "demo" / "demo.jpg", tmp_path)
    container = run("buildah", "from", image)
    try:
        work = ("buildah", "run", "--network=none", f"--volume={tmp_path}:/work", container, "--")
        assert "Everything works." in run(*work, "sniper", "doctor")
        demo = ("sniper", "demo", "--weights", "model.zip", "--im_path", "demo.jpg")
        run(*work, *demo, "--threshold", "0.01")
        run(*work, "sniper", "detect", "demo.jpg", "--model", "model.zip", "--out", "found")
    finally:
        run("buildah", "rm", container)
    assert list(tmp_path.glob("**/*detections*")), list(tmp_path.iterdir())
    assert (tmp_path / "found" / "detections.json").is_file()
