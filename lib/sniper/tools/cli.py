"""The `sniper` command: one name per tool, and the way from errors to exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

import sniper
from sniper.errors import SniperError, without_mxnet

Main = Callable[[Sequence[str]], int]

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
DEBUG_VARIABLE = "SNIPER_DEBUG"

# name: (module with main(argv), one line of help)
TOOLS: dict[str, tuple[str, str]] = {
    "doctor": ("sniper.tools.doctor", "check the installation and say how to mend it"),
    "print-config": ("sniper.tools.print_config", "show a resolved config, or explain every key"),
    "check-data": ("sniper.tools.check_data", "find all problems of a data set before training"),
    "convert-data": ("sniper.tools.convert_data", "data sets between COCO, Pascal VOC and YOLO"),
    "cluster-classes": ("sniper.tools.cluster_classes", "super-classes for R-FCN-3K, by k-means"),
    "suggest-scales": ("sniper.tools.suggest_scales", "pyramid and anchors for your object sizes"),
    "plan-memory": ("sniper.tools.plan_memory", "memory of training and testing, without a run"),
    "chip-stats": ("sniper.tools.chip_stats", "chips, pixels and coverage in numbers and a plot"),
    "plot-log": ("sniper.tools.plot_log", "curves of training runs as a picture"),
    "show-chips": ("sniper.tools.show_chips", "pictures of chips and of the network's input"),
    "export-chips": ("sniper.tools.export_chips", "an epoch of chips as a set for any trainer"),
    "merge-detections": (
        "sniper.tools.merge_detections",
        "detections on exported chips back to their images",
    ),
    "make-toy-data": ("sniper.tools.make_toy_data", "draw a small data set in COCO format"),
    "import-weights": ("sniper.tools.import_weights", "convert the weights of other projects"),
    "place-weights": ("sniper.tools.place_weights", "check a weight file, put it where it belongs"),
    "place-proposals": (
        "sniper.tools.place_proposals",
        "check proposal files, put them in place",
    ),
    "export": ("sniper.tools.export", "a trained detector in one archive"),
    "quantize": ("sniper.tools.quantize", "a detector in INT8, for faster detection on CPUs"),
    "bench": ("sniper.tools.bench", "how long each stage of detection takes"),
    "convert-proposals": ("sniper.tools.convert_proposals", "2018 proposal pickles to NPZ files"),
    "mine-negatives": (
        "sniper.tools.mine_negatives",
        "train with mined negative chips, in one go",
    ),
    "hard-negatives": (
        "sniper.tools.hard_negatives",
        "train a detector on with chips around its own errors",
    ),
    "train": ("sniper.tools.train", "train a detector (main_train.py)"),
    "reproduce": ("sniper.tools.reproduce", "whether a run gives the same weights again"),
    "launch": ("sniper.tools.launch", "train with several processes or machines"),
    "test": ("sniper.tools.test", "detect and evaluate on a data set (main_test.py)"),
    "plan-test": ("sniper.tools.plan_test", "the way to test that is worth its time"),
    "evaluate": ("sniper.tools.evaluate", "evaluate result files of any detector, without a model"),
    "analyze": ("sniper.tools.analyze", "what is wrong with the detections of a set, and why"),
    "report": ("sniper.tools.report", "one page to look at: data, chips, curves, results, errors"),
    "detect": ("sniper.tools.detect", "detect objects in images, folders and videos"),
    "fit-classes": (
        "sniper.tools.fit_classes",
        "new classes for a detector from pictures without boxes",
    ),
    "demo": ("sniper.tools.demo", "detect objects in a picture and look at them (demo.py)"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `sniper <tool> [arguments]` and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        return run_main(lambda _: _print(_help_text()) or EXIT_USAGE, [])
    if arguments[0] in ("-h", "--help", "help"):
        return run_main(lambda _: _print(_help_text()), [])
    if arguments[0] in ("-V", "--version"):
        return run_main(lambda _: _print(f"sniper {sniper.__version__}"), [])
    name, rest = arguments[0], arguments[1:]
    if name not in TOOLS:
        print(_unknown_tool(name), file=sys.stderr)
        return EXIT_USAGE
    return run_main(lambda tool_argv: _load_main(TOOLS[name][0])(tool_argv), rest)


def run_main(function: Main, argv: Sequence[str] | None = None) -> int:
    """Calls `function(argv)` and turns what a user can cause into a message and an exit code.

    SniperError gives its own code (1 run failed, 2 usage or config, 3 data), Ctrl-C 130; missing
    packages, missing compiled parts and errors of the operating system give 1. Programming errors
    keep their traceback; the variable SNIPER_DEBUG=1 shows it for all errors.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _guarded(function, arguments)
        # What is left in the buffer would be written at exit, where nobody can catch the error.
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has gone, e.g. `sniper ... | head`
        # Keeps the interpreter from complaining when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _guarded(function: Main, arguments: Sequence[str]) -> int:
    try:
        return int(function(arguments) or 0)
    except SystemExit as stop:  # argparse: --help gives 0, a bad flag 2
        return _exit_code(stop)
    except SniperError as error:
        return _report(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _report("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        raise
    except ImportError as error:
        if error.name == "mxnet" and isinstance(error, ModuleNotFoundError):
            return _report(str(without_mxnet()), without_mxnet().exit_code)
        if not _mend_import(error):
            raise
        return _report(_mend_import(error), EXIT_FAILED)
    except OSError as error:
        return _report(str(error), EXIT_FAILED)


def _print(text: str) -> int:
    print(text)
    return 0


def _load_main(module: str) -> Main:
    return importlib.import_module(module).main


def _mend_import(error: ImportError) -> str:
    """What to tell the user about a failed import; empty when it is a programming error."""
    module = error.name or ""
    if module.startswith("sniper.native"):
        return f"the compiled functions do not load: {error}\n  fix: bash scripts/compile.sh"
    if isinstance(error, ModuleNotFoundError) and module.split(".")[0] not in ("", "sniper"):
        fix = "fix: pip install -r requirements.txt, then run `sniper doctor`"
        return f"the Python package {module} is not installed\n  {fix}"
    return ""


def _report(message: str, code: int) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code
    print(stop.code, file=sys.stderr)
    return EXIT_FAILED


def _unknown_tool(name: str) -> str:
    close = difflib.get_close_matches(name, TOOLS, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"error: there is no tool '{name}'.{hint} `sniper --help` lists the tools."


def _help_text() -> str:
    width = max(map(len, TOOLS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in TOOLS.items()]
    return "\n".join(
        [
            "usage: sniper <tool> [arguments]",
            "",
            "SNIPER: multi-scale training of object detectors on chips.",
            "",
            "tools:",
            *lines,
            "",
            "`sniper <tool> --help` explains a tool; start with `sniper doctor`.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
