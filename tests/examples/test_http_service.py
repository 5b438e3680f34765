"""The example of a service: right answers to many at once, and clear ones to wrong requests."""

from __future__ import annotations

import json
import runpy
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sniper import Predictor
from tests.runs.random_run import random_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "http_service.py"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(random_run(tmp_path_factory.mktemp("run")).recipe, devices="cpu")


@pytest.fixture(scope="module")
def address(predictor):
    example = SimpleNamespace(**runpy.run_path(str(EXAMPLE)))
    with example.Service(("127.0.0.1", 0), predictor) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}/"
        service.shutdown()


def ask(url, body=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def picture(seed, side=90):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return cv2.resize(pixels, (side, 70))


def test_threads_get_their_own_answers(address, predictor):
    pictures = [picture(seed) for seed in range(6)]
    bodies = [cv2.imencode(".png", pixels)[1].tobytes() for pixels in pictures]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: ask(f"{address}?threshold=0.05", body), bodies))
    for pixels, (status, answer) in zip(pictures, answers):
        (expected,) = predictor(pixels)
        assert status == 200 and answer == expected.filter(0.05).as_dict()
    assert any(answer["detections"] for _, answer in answers)


def test_it_says_what_it_finds(address, predictor):
    assert ask(address) == (200, {"classes": list(predictor.class_names[1:])})


def encoded(pixels, ending=".png"):
    return cv2.imencode(ending, pixels)[1].tobytes()


def test_pictures_are_read_as_files_are(address, predictor, tmp_path):
    file = tmp_path / "twelve_bits.png"
    file.write_bytes(encoded(picture(1).astype(np.uint16) * 16))
    (expected,) = predictor(file)
    status, answer = ask(f"{address}?threshold=0.02", file.read_bytes())
    assert status == 200 and answer["detections"]
    assert answer["detections"] == expected.filter(0.02).as_dict()["detections"]


def bomb(side):
    """A PNG of `side` x `side` px that says so in its header alone."""
    content = bytearray(encoded(np.zeros((1, 1, 3), np.uint8)))
    content[16:24] = 2 * side.to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (encoded(picture(0), ".jpg")[:-40], "cut off"),
        (encoded(picture(0))[:-40], "cut off"),
        (bomb(30000), "8000 px"),
        (encoded(picture(0), ".bmp"), "JPEG or PNG"),
    ],
)
def test_bad_pictures_are_told_before_they_are_decoded(address, monkeypatch, body, word):
    monkeypatch.setattr("cv2.imdecode", None)
    status, answer = ask(address, body)
    assert status == 400 and word in answer["error"]


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ("", "got none"),
        ("Content-Length: -5\r\n", "got -5"),
        ("Content-Length: many\r\n", "got many"),
        ("Content-Length: 100\r\n", "4 of 100 bytes"),
        ("Transfer-Encoding: chunked\r\n", "got none"),
    ],
)
def test_wrong_lengths_are_told(address, head, word):
    place = urllib.parse.urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\n{head}\r\nbody".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 400") and word.encode() in answer


@pytest.mark.parametrize(
    ("query", "body", "word"),
    [
        ("", b"no picture", "no picture"),
        ("", b"", "got 0"),
        ("?threshold=2", b"x", "0 to 1"),
        ("?threshold=nan", b"x", "0 to 1"),
        ("?threshold=much", b"x", "could not convert"),
        ("?threshold=0.1&threshold=0.9", b"x", "one value"),
        ("?treshold=0.9", b"x", "one value"),
        ("", cv2.imencode(".png", np.zeros((1, 8001, 3), np.uint8))[1].tobytes(), "8000 px"),
        ("", cv2.imencode(".png", np.zeros((1, 7000, 3), np.uint8))[1].tobytes(), "too thin"),
    ],
)
def test_wrong_requests_are_told(address, query, body, word):
    status, answer = ask(address + query, body)
    assert status == 400 and word in answer["error"]
