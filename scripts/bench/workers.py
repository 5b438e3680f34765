"""What an update costs with 1, 2 and 4 workers of `sniper launch`: here, and on paper.

    .venv/bin/python scripts/bench/workers.py exchange          # the sums alone
    .venv/bin/python scripts/bench/workers.py train data/toy     # updates of a training
    .venv/bin/python scripts/bench/workers.py paper              # 8 machines with 8 GPUs each

All processes share one machine's cores and memory: nothing here shows a network. With more workers
than cores they wait for each other, hence the CPU time beside the time. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# Millions of values; those of 2018's networks for 80 classes are in tests/golden.
NETWORKS = {"a small one": 0.9, "MobileNetV2": 13.5, "ResNet-50": 54.7, "ResNet-101": 73.7}
JOBS = ((1, 1), (2, 1), (2, 2), (4, 2))  # workers, servers
REPEATS = 7
UPDATES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("exchange", help="sums over the workers, without a training")
    train = commands.add_parser("train", help="sniper_mobilenetv2_toy")
    train.add_argument("data", type=Path, help="folder of `sniper make-toy-data`")
    commands.add_parser("paper", help="traffic and time of 8 x 8 GPUs, computed")
    worker = commands.add_parser("worker")
    worker.add_argument("millions", type=float)
    args = parser.parse_args()
    if args.command == "worker":
        exchange_as_worker(args.millions)
    elif args.command == "exchange":
        exchange()
    elif args.command == "train":
        train_steps(args.data.resolve())
    else:
        on_paper()


def launch(workers: int, servers: int, *command: object) -> str:
    """What the workers of a job have said; raises CalledProcessError when it fails."""
    launcher = [sys.executable, "-m", "sniper", "launch", "-n", workers, "-s", servers, "--"]
    line = [str(word) for word in (*launcher, *command)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def exchange() -> None:
    print("| network | values | workers, servers | a sum | CPU time of a worker in it |")
    print("|---|---|---|---|---|")
    for name, millions in NETWORKS.items():
        for workers, servers in JOBS:
            said = launch(workers, servers, Path(__file__), "worker", millions)
            (line,) = [part for part in said.splitlines() if '"median_s"' in part]
            took = json.loads(line[line.index("{") :])
            print(
                f"| {name} | {millions} M | {workers}, {servers} | {took['median_s'] * 1e3:.0f} ms "
                f"| {took['cpu_s'] * 1e3:.0f} ms |",
                flush=True,
            )


def exchange_as_worker(millions: float) -> None:
    """Sums arrays with the other workers; worker 0 prints the median of the times."""
    from sniper.training.distributed import Workers

    with Workers("dist_sync") as workers:
        workers.connect()
        import mxnet as mx

        from sniper.training.collectives import WorkerSum

        # Like layers: a few large arrays and many small ones.
        sizes = split(int(millions * 1e6), parts=100)
        arrays = [mx.nd.ones(size) for size in sizes]
        total = WorkerSum(workers.kvstore, "bench")
        names = [f"layer{i}" for i in range(len(sizes))]
        times, cpu = [], []
        for _ in range(REPEATS + 1):
            workers.barrier()
            begin, begin_cpu = time.perf_counter(), time.process_time()
            total.sum_(names, arrays)
            for array in arrays:
                array.wait_to_read()
            times.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - begin_cpu)
            workers.beat()
        expected = float(workers.count) ** (REPEATS + 1)
        if any((array.asnumpy() != expected).any() for array in arrays):
            raise SystemExit("the sums are wrong")
        if workers.rank == 0:  # the first sum makes the keys
            shown = {"median_s": statistics.median(times[1:]), "cpu_s": statistics.median(cpu[1:])}
            print(json.dumps(shown), flush=True)


def split(count: int, parts: int) -> list[int]:
    """Sizes that add up to `count`, from large to small."""
    shares = np.geomspace(1.0, 1e-3, parts)
    sizes = np.maximum(1, count * shares / shares.sum()).astype(int)
    sizes[0] += count - sizes.sum()
    return [int(size) for size in sizes]


def train_steps(data: Path) -> None:
    """Chips and updates a second of the toy recipe; each worker has 16 chips an update."""
    print("| workers, servers | an update | chips/s | values summed |")
    print("|---|---|---|---|")
    for workers, servers in ((1, 0), *JOBS):
        with tempfile.TemporaryDirectory() as folder:
            keys = ["output_path", folder, "dataset.dataset_path", data, "gpus", "cpu",
                    "TRAIN.MAX_UPDATES", UPDATES, "TRAIN.NUM_PROCESS", 1]  # fmt: skip
            command = [ROOT / "main_train.py", "--cfg", "sniper_mobilenetv2_toy",
                       "--display", 5, "--set", *keys]  # fmt: skip
            if servers:
                launch(workers, servers, *command)
            else:
                alone = [sys.executable, *map(str, command)]
                subprocess.run(alone, stderr=subprocess.DEVNULL, check=True, cwd=ROOT)
            (log,) = Path(folder).rglob("sniper_mobilenetv2_toy.jsonl")
            took_s = seconds_per_update(log)
            (params,) = sorted(Path(folder).rglob("*.params"))[:1]
            millions = params.stat().st_size / 4e6
        name = f"{workers}, {servers}" if servers else "1, no launcher"
        chips = 16 * workers / took_s
        print(f"| {name} | {took_s * 1e3:.0f} ms | {chips:.1f} | {millions:.2f} M |", flush=True)


def seconds_per_update(log: Path) -> float:
    """Median over the displayed pieces of a run, without the first one."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    pieces = [
        (after["time"] - before["time"]) / (after["update"] - before["update"])
        for before, after in zip(train[1:], train[2:])
        if after["update"] > before["update"]
    ]
    return statistics.median(pieces)


def on_paper(machines: int = 8, networks_gbit: Sequence[int] = (10, 25, 100)) -> None:
    """One worker (8 GPUs) and one server a machine; values travel as float32.

    A worker sends its sums to the servers and gets those of all back; a server gets a share of the
    values from each worker and sends it back. So each machine sends, and gets, its worker's values
    and its server's, all but the share that stays at home. Links carry both ways at once.
    """
    print("| network | each machine sends and gets | " + " | ".join(
        f"at {speed} Gbit/s" for speed in networks_gbit
    ) + " |")  # fmt: skip
    print("|---|---|" + "---|" * len(networks_gbit))
    for name, millions in NETWORKS.items():
        # As worker: (machines - 1) / machines of its values; as server: as much.
        megabytes = 2 * millions * 4 * (machines - 1) / machines
        times = [f"{megabytes * 8 / (speed * 1e3):.3f} s" for speed in networks_gbit]
        print(f"| {name} | {megabytes:.0f} MB | " + " | ".join(times) + " |")


if __name__ == "__main__":
    if not os.environ.get("OMP_NUM_THREADS"):
        raise SystemExit("set OMP_NUM_THREADS=1: the workers share the cores")
    main()
