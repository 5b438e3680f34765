"""A detector behind HTTP on one page: POST a picture, get its objects as JSON.

    sniper export --cfg sniper_res18_toy --out toy.onnx.zip --format onnx
    python examples/http_service.py toy.onnx.zip --port 8000
    curl --data-binary @picture.jpg "http://127.0.0.1:8000/?threshold=0.5"

An example, not a product: no authentication, no encryption, one process; it listens on this machine
alone. MXNet is not needed for archives of ONNX graphs. Threads share one Predictor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from sniper import Predictor
from sniper.data.image import read_image
from sniper.data.image_header import image_size
from sniper.errors import SniperError

LARGEST_BODY = 32 << 20  # bytes
LARGEST_SIDE = 8000  # px
# Both tell their size before they are decoded: a small file may hold a picture of many GB.
FORMATS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
TIMEOUT_S = 20  # of a connection that sends nothing


class Service(ThreadingHTTPServer):
    """Answers with the detections of one Predictor.

    Args:
        address: host and port; port 0 takes a free one.
        predictor: loaded once.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], predictor: Predictor) -> None:
        super().__init__(address, Handler)
        self.predictor = predictor


class Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = TIMEOUT_S
    server: Service

    def do_POST(self) -> None:
        """A picture in JPEG or PNG; the answer is `Prediction.as_dict`."""
        try:
            threshold = _threshold(self.path)
            pixels = _picture(self._body())
            (prediction,) = self.server.predictor(pixels)
        except (ValueError, SniperError) as error:
            self._answer(400, {"error": str(error)})
            return
        self._answer(200, prediction.filter(threshold).as_dict())

    def do_GET(self) -> None:
        """What the detector finds: for checks of health."""
        self._answer(200, {"classes": list(self.server.predictor.class_names[1:])})

    def _body(self) -> bytes:
        text = self.headers.get("Content-Length", "")
        length = int(text) if text.isdecimal() else 0
        if not 0 < length <= LARGEST_BODY:
            raise ValueError(f"Content-Length: expected 1 to {LARGEST_BODY}, got {text or 'none'}")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ValueError(f"the body ends after {len(body)} of {length} bytes")
        return body

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _threshold(path: str) -> float:
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    values = query.pop("threshold", ["0.5"])
    if query or len(values) > 1:
        raise ValueError("the address takes one value, threshold, and nothing else")
    threshold = float(values[0])
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0 to 1, got {threshold:g}")
    return threshold


def _picture(body: bytes) -> np.ndarray:
    """Read as files are: cut-off ones are refused, 16 bits become 8, EXIF turns the picture."""
    if not body.startswith(FORMATS):
        raise ValueError("the body is no picture in JPEG or PNG")
    with tempfile.NamedTemporaryFile(prefix="picture-") as file:
        file.write(body)
        file.flush()
        if max(image_size(file.name)) > LARGEST_SIDE:
            raise ValueError(f"the picture's sides must not exceed {LARGEST_SIDE} px")
        return read_image(file.name)


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="archive of `sniper export`")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--mode", help="single, pyramid, focus or slice (default: the model's)")
    args = parser.parse_args()
    with Service(("127.0.0.1", args.port), Predictor(args.model, mode=args.mode)) as service:
        print(f"http://127.0.0.1:{service.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            service.serve_forever()


if __name__ == "__main__":
    main()
