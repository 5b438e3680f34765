"""Work for `run_in_processes` whose blocks become files, with trouble where it is wanted."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from sniper.errors import DataError


@dataclass
class FakeWork:
    folder: Path
    trouble: str = ""
    at: int = 0

    def open(self):
        if self.trouble == "open":
            raise DataError("the weights are broken", where="x.params")
        (self.folder / f"worker_{os.getpid()}").write_text("")
        return self.run

    def images_of(self, number):
        return f"block {number + 1}: {number}.jpg"

    def run(self, number, on_step):
        if number == self.at and self.trouble:
            self.fail(number)
        time.sleep(0.02)
        on_step("level 1/1", 1, 1)
        (self.folder / f"block_{number}").write_text(str(os.getpid()))

    def fail(self, number):
        if self.trouble == "data":
            raise DataError("the image is cut off", where=f"{number}.jpg")
        if self.trouble == "bug":
            raise ZeroDivisionError("divided by nought")
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "exit":
            os._exit(3)
        time.sleep(600)
