"""The download scripts against local files and a server on this machine that misbehaves."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from sniper.config import load_config
from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.weights import initialise, with_test_params, write_params
from sniper.runs.resolve import detector_spec

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "download_pretrained_models",
    "download_sniper_detector",
    "download_sniper_autofocus_detectors",
    "download_sniper_neg_props",
)
RECIPE = "sniper_mobilenetv2_toy"
SMALL = ["network.WIDTH", "0.25", "network.FC_CHANNELS", "16", "network.ROI_CHANNELS", "16"]
CONTENT = np.random.default_rng(0).bytes(300_000)
TRANSFER, USAGE, CONTENT_WRONG = 1, 2, 3


def sha256(data):
    return hashlib.sha256(data).hexdigest()


SIZE, DIGEST = len(CONTENT), sha256(CONTENT)


class Server(ThreadingHTTPServer):
    """Serves `files`; cuts answers off after `cut` bytes, fails with `error`, ignores ranges."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges = {}, []
        self.cut = self.error = None
        self.knows_ranges = True

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        data = self.server.files.get(self.path.strip("/"))
        if self.server.error or data is None:
            self.send_error(self.server.error or 404)
            return
        start = 0
        if self.server.knows_ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.server.ranges.append(start)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: self.server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the scripts, so that nothing is written to the real one."""
    shutil.copytree(REPO / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("bench"))
    return tmp_path


def run(checkout, script, *argv, cwd=None, **options):
    path = os.pathsep.join(
        [*options.pop("path", []), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    return subprocess.run(
        ["bash", str(checkout / "scripts" / f"{script}.sh"), *map(str, argv)],
        env={
            **os.environ,
            "PATH": path,
            "MXNET_GLUON_REPO": options.pop("zoo", ""),
            "SNIPER_RELEASE_MIRROR": options.pop("mirror", "http://127.0.0.1:9"),
        },
        cwd=cwd or checkout,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def fetch(checkout, server, *, size=SIZE, digest=DIGEST, **options):
    """Calls the helper itself: the scripts differ in what follows."""
    program = f". scripts/fetch.sh; fetch '{server.url('file')}' kept/file '{size}' '{digest}'"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    return done, checkout / "kept" / "file"


def test_a_whole_file_is_fetched_once(checkout, server):
    server.files["file"] = CONTENT
    done, path = fetch(checkout, server)
    assert done.returncode == 0 and path.read_bytes() == CONTENT
    server.error = 500
    done, _ = fetch(checkout, server)
    assert done.returncode == 0 and "already there" in done.stdout


def test_a_truncated_transfer_goes_on_where_it_stopped(checkout, server):
    server.files["file"], server.cut = CONTENT, 100_000
    done, path = fetch(checkout, server)
    part = path.with_name("file.part")
    assert done.returncode == TRANSFER and "100000 bytes" in done.stderr
    assert not path.exists() and part.read_bytes() == CONTENT[:100_000]
    server.cut = None
    done, _ = fetch(checkout, server)
    assert done.returncode == 0 and path.read_bytes() == CONTENT
    assert server.ranges == [100_000] and not part.exists()


def test_a_server_without_ranges_starts_again(checkout, server):
    server.files["file"], server.cut = CONTENT, 100_000
    fetch(checkout, server)
    server.cut, server.knows_ranges = None, False
    done, path = fetch(checkout, server)
    assert done.returncode == 0 and path.read_bytes() == CONTENT
    assert path.with_name("file.part.rejected").read_bytes() == CONTENT[:100_000]


@pytest.mark.parametrize(
    ("facts", "word"),
    [({"digest": "0" * 64}, "SHA-256"), ({"size": 299_999}, "size"), ({"size": 300_001}, "size")],
)
def test_wrong_content_is_refused_and_kept_aside(checkout, server, facts, word):
    server.files["file"] = CONTENT
    done, path = fetch(checkout, server, **facts)
    assert done.returncode == CONTENT_WRONG and f"the {word} is wrong" in done.stderr
    assert not path.exists()
    assert path.with_name("file.part.rejected").read_bytes() == CONTENT
    done, _ = fetch(checkout, server)
    assert done.returncode == 0 and path.read_bytes() == CONTENT


def test_a_damaged_file_that_is_there_is_moved_aside_and_fetched_again(checkout, server):
    server.files["file"] = CONTENT
    path = checkout / "kept" / "file"
    path.parent.mkdir()
    for rubbish in (b"rubbish", b"more"):
        path.write_bytes(rubbish)
        done, _ = fetch(checkout, server)
        assert done.returncode == 0 and path.read_bytes() == CONTENT
    kept = {p.read_bytes() for p in path.parent.glob("file.rejected*")}
    assert kept == {b"rubbish", b"more"}


@pytest.mark.parametrize("code", [404, 500])
def test_server_errors_end_with_a_message(checkout, server, code):
    server.files["file"], server.error = CONTENT, code
    done, path = fetch(checkout, server)
    assert done.returncode == TRANSFER and "the server refuses" in done.stderr
    assert "--file" in done.stderr and not path.exists()


def test_a_dead_server_ends_with_a_message(checkout, server):
    dead = Server()
    dead.server_close()
    done, _ = fetch(checkout, dead)
    assert done.returncode == TRANSFER and "the transfer failed" in done.stderr


def limit_files_to_50_kb():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_full_disk_keeps_the_part(checkout, server):
    server.files["file"] = CONTENT
    done, path = fetch(checkout, server, preexec_fn=limit_files_to_50_kb)
    assert done.returncode == TRANSFER and "disk full" in done.stderr
    part = path.with_name("file.part")
    assert CONTENT.startswith(part.read_bytes()) and part.stat().st_size > 0
    done, _ = fetch(checkout, server)
    assert done.returncode == 0 and path.read_bytes() == CONTENT


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_and_names_its_flags(checkout, script):
    done = run(checkout, script, "--help")
    assert done.returncode == 0
    for word in ("--file", "--url", "--sha256", "--size", "--help", "2018", f"{script}.sh"):
        assert word in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


RELEASE = {
    ("download_pretrained_models", "recipe"): "pretrained_model.tar.gz",
    ("download_sniper_detector",): "sniper_models.tar.gz",
    ("download_sniper_autofocus_detectors",): "sniper_models.tar.gz",
    ("download_sniper_neg_props",): "proposals.tar.gz",
}


@pytest.mark.parametrize("script", RELEASE)
def test_the_release_is_tried_and_a_failure_is_no_success(checkout, server, script):
    done = run(checkout, *script, mirror=server.url("release"))
    assert done.returncode == TRANSFER
    assert f"trying {server.url('release')}/{RELEASE[script]}" in done.stdout
    assert "NOT fetched" in done.stderr and "--file PATH" in done.stderr
    assert "placed" not in done.stdout and "gone" not in done.stdout + done.stderr
    # A page that says where the file was, in the place of the file.
    server.files[f"release/{RELEASE[script]}"] = b"<html>The file has moved.</html>"
    done = run(checkout, *script, mirror=server.url("release"))
    assert done.returncode == CONTENT_WRONG and "NOT fetched" in done.stderr
    left = [path.name for path in (checkout / "data/downloads").iterdir()]
    assert left == [f"{RELEASE[script]}.rejected"], "the next call tries again"


def test_the_addresses_are_those_of_2021(checkout):
    text = (checkout / "scripts/fetch.sh").read_text()
    for address in ("2WgSJ6b", "3j6mAXJ", "3j8SOl7"):
        assert text.count(f"=https://bit.ly/{address}\n") == 1


def test_an_interrupted_release_goes_on_and_is_placed(checkout, weights, server):
    """Several detectors of one file name: that of the recipe is taken."""
    packed = weights.path.with_name("sniper_models.tar.gz")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(REPO / "LICENSE", "output/other/other_recipe/train/SNIPER-0002.params")
        archive.add(weights.path, f"output/mine/{RECIPE}/train/SNIPER-0002.params")
    data = packed.read_bytes()
    server.files["sniper_models.tar.gz"], server.cut = data, len(data) // 2
    options = {"mirror": server.url("")}
    done = run(checkout, "download_sniper_detector", *weights.recipe, **options)
    assert done.returncode == TRANSFER and "goes on from there" in done.stderr
    assert "NOT fetched" in done.stderr and not weights.target.exists()
    server.cut = None
    done = run(checkout, "download_sniper_detector", *weights.recipe, **options)
    assert done.returncode == 0, done.stderr
    assert server.ranges[-1] > 0, "it went on with what was there"
    assert "no SHA-256 is known" in done.stdout
    assert weights.target.read_bytes() == weights.data
    # The fix that a refusal prints is a flag of the script too.
    member = ["--member", "SNIPER-0002.params"]
    done = run(checkout, "download_sniper_detector", *member, *weights.recipe, **options)
    assert done.returncode == CONTENT_WRONG and "name one with --member PATH" in done.stderr
    member = ["--member", "other_recipe/train/SNIPER-0002.params"]
    done = run(checkout, "download_sniper_detector", *member, *weights.recipe, **options)
    assert done.returncode == CONTENT_WRONG and "no MXNet parameter" in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ("--url", "http://127.0.0.1:1/x"),
        ("--url", "http://127.0.0.1:1/x", "--sha256", "abc"),
        ("--file", "x", "--url", "y"),
        ("--file",),
        ("--size", "many", "--file", "x"),
        ("--fiel", "x"),
        ("surplus",),
    ],
)
def test_bad_usage_is_told_apart(checkout, argv):
    done = run(checkout, "download_sniper_detector", *argv)
    assert done.returncode == USAGE and "--help" in done.stderr


class Weights:
    """A detector's `.params` of a small network, and what the scripts need to know of it."""

    def __init__(self, root):
        self.out = root / "output"
        self.recipe = ["--cfg", RECIPE, "--set", *SMALL, "output_path", str(self.out)]
        cfg = load_config(RECIPE, SMALL)
        spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
        arg, aux, _ = initialise(
            build_detector(spec, train=True), train_input_shapes(spec, 64), None, 0
        )
        self.path = root / "copy.params"
        write_params(self.path, with_test_params(arg), aux)
        self.data = self.path.read_bytes()
        self.target = self.out / RECIPE / "train" / "SNIPER-0002.params"


@pytest.fixture
def weights(tmp_path_factory):
    return Weights(tmp_path_factory.mktemp("weights"))


def test_a_local_copy_of_a_detector_is_checked_and_placed(checkout, weights):
    script = "download_sniper_detector"
    argv = ["--file", weights.path.name, *weights.recipe]
    done = run(checkout, script, *argv, cwd=weights.path.parent)
    assert done.returncode == 0, done.stderr
    assert weights.target.read_bytes() == weights.data
    wrong = run(checkout, script, "--sha256", "0" * 64, *argv, cwd=weights.path.parent)
    assert wrong.returncode == CONTENT_WRONG and weights.path.exists()


def test_an_archive_from_a_mirror_is_unpacked(checkout, weights, server):
    packed = weights.path.with_name("release.tar.gz")
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(weights.path, "models/sniper/SNIPER-0007.params")
        archive.add(REPO / "LICENSE", "models/LICENSE")
    server.files["release.tar.gz"] = data = packed.read_bytes()
    argv = ["--url", server.url("release.tar.gz"), "--sha256", sha256(data), "--size", len(data)]
    done = run(checkout, "download_sniper_detector", *argv, *weights.recipe)
    assert done.returncode == 0, done.stderr
    assert weights.target.read_bytes() == weights.data
    assert (checkout / "data/downloads/release.tar.gz").read_bytes() == data


def test_flags_for_one_file_want_one_network(checkout):
    done = run(checkout, "download_pretrained_models", "resnet50", "--member", "x")
    assert done.returncode == USAGE and "--member is for the NETWORK recipe" in done.stderr
    done = run(checkout, "download_sniper_neg_props", "--member", "x")
    assert done.returncode == USAGE and "--member is for weights" in done.stderr
    done = run(checkout, "download_pretrained_models", "resnet50", "mobilenetv2", "--file", "x")
    assert done.returncode == USAGE and "one NETWORK" in done.stderr


def fake_npm(folder, package):
    """An `npm` that packs `package`, or fails when that is None."""
    program = folder / "npm"
    program.parent.mkdir(exist_ok=True)
    work = f"cp '{package}' ./mediapipe-objectron.tgz" if package else "exit 1"
    program.write_text(f'#!/bin/sh\n[ "$1" = pack ] || exit 9\n{work}\n')
    program.chmod(0o755)
    return [str(folder)]


def test_a_wrong_npm_package_is_refused_and_a_failure_told(checkout, tmp_path):
    (tmp_path / "package.tgz").write_bytes(b"another package")
    path = fake_npm(tmp_path / "bin", tmp_path / "package.tgz")
    done = run(checkout, "download_pretrained_models", "mobilenetv2", path=path)
    assert done.returncode == CONTENT_WRONG and "size is wrong" in done.stderr
    kept = list((checkout / "data/downloads").glob("*.rejected"))
    assert [p.read_bytes() for p in kept] == [b"another package"]
    path = fake_npm(tmp_path / "bin", None)
    done = run(checkout, "download_pretrained_models", "mobilenetv2", path=path)
    assert done.returncode == TRANSFER and "npm pack @mediapipe/objectron" in done.stderr


def test_files_of_the_model_zoo_are_checked_by_sha1(checkout, server):
    with zipfile.ZipFile(checkout / "zoo.zip", "w") as archive:
        archive.writestr("resnet50_v2-ecdde353.params", b"not the zoo's file")
    name = "gluon/models/resnet50_v2-ecdde353.zip"
    server.files[name] = (checkout / "zoo.zip").read_bytes()
    done = run(checkout, "download_pretrained_models", "resnet50", zoo=server.url(""))
    assert done.returncode == CONTENT_WRONG and "SHA-1 ecdde353" in done.stderr
    assert "SHA-256 is not known" in done.stdout
    kept = list((checkout / "data/downloads").iterdir())
    assert [p.name for p in kept] == ["resnet50_v2-ecdde353.zip.rejected"]


def test_no_registry_addresses_stand_in_the_scripts():
    for path in (REPO / "scripts").glob("*.sh"):
        assert "registry." not in path.read_text(encoding="utf-8")
