"""A detector behind HTTP on one page: POST a picture, get its objects as JSON.

    sniper export --cfg sniper_mobilenetv2_toy --out toy.onnx.zip --format onnx
    python examples/http_service.py toy.onnx.zip --port 8000
    curl --data-binary @picture.jpg http://127.0.0.1:8000/?threshold=0.5

An example, not a product: no authentication, no encryption, one process; it listens on this machine
alone. MXNet is not needed for archives of ONNX graphs. Threads share one Predictor.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from sniper import Predictor
from sniper.errors import SniperError

LARGEST_BODY = 32 << 20  # bytes
LARGEST_SIDE = 8000  # px
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
        """A picture in any format that OpenCV reads; the answer is `Prediction.as_dict`."""
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
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= LARGEST_BODY:
            raise ValueError(f"the body must have 1 to {LARGEST_BODY} bytes, got {length}")
        return self.rfile.read(length)

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _threshold(path: str) -> float:
    threshold = float(parse_qs(urlsplit(path).query).get("threshold", ["0.5"])[0])
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0 to 1, got {threshold:g}")
    return threshold


def _picture(body: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("the body is no picture")
    if max(pixels.shape[:2]) > LARGEST_SIDE:
        raise ValueError(f"the picture's sides must not exceed {LARGEST_SIDE} px")
    return pixels


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="archive of `sniper export`")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--mode", help="single, pyramid, focus or slice (default: the model's)")
    args = parser.parse_args()
    with Service(("127.0.0.1", args.port), Predictor(args.model, mode=args.mode)) as service:
        print(f"http://127.0.0.1:{service.server_port}/", flush=True)
        service.serve_forever()


if __name__ == "__main__":
    main()
