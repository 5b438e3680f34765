"""The `sniper` dispatcher: tools, exit codes, messages."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from sniper.config import load_config
from sniper.errors import ConfigError, DataError, OpsError, TrainingError
from sniper.tools import cli, print_config
from sniper.tools.cli import TOOLS, main, run_main


def raising(error):
    def function(argv):
        raise error

    return function


def test_help_has_one_line_for_each_tool(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, text) in TOOLS.items():
        assert sum(line.split()[:1] == [name] and text in line for line in lines) == 1
    assert main([]) == 2


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_a_module(name):
    assert importlib.util.find_spec(TOOLS[name][0]) is not None


def parsers():
    """The parser of every tool but the doctor, which must import nothing of ours."""
    for name, (module, _) in TOOLS.items():
        if name != "doctor":
            yield name, importlib.import_module(module)._parser()


def test_a_flag_means_the_same_in_every_command():
    shared = "--cfg --save_prefix --set --weights --json --plot --overwrite --check --display"
    seen = {flag: {} for flag in shared.split()}
    for name, parser in parsers():
        for action in parser._actions:
            for flag in seen.keys() & set(action.option_strings):
                facts = action.help, action.metavar, action.default, action.type, action.dest
                seen[flag][name] = facts
    for flag, facts in seen.items():
        assert len(facts) > 1 and len(set(map(repr, facts.values()))) == 1, (flag, facts)


def test_every_flag_of_every_command_is_explained():
    for name, parser in parsers():
        assert parser.description and parser.epilog, name
        for action in parser._actions:
            assert action.help, (name, action)
            # "--epoch EPOCH" says nothing that the flag does not say.
            takes_value = action.nargs != 0 and action.choices is None
            assert not takes_value or action.metavar, (name, action)
        parser.format_help()


def test_unknown_tool_suggests_the_nearest(capsys):
    assert main(["docter"]) == 2
    assert "Did you mean 'doctor'?" in capsys.readouterr().err
    assert main(["zzz"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sniper 0.")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("what", fix="this"), 2, "what\n  fix: this"),
        (DataError("what"), 3, "what"),
        (OpsError("what"), 1, "what"),
        (TrainingError("what"), 1, "what"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (ModuleNotFoundError("No module named 'mxnet'", name="mxnet"), 2, "needs MXNet"),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), 1, "requirements.txt"),
        (ImportError("stale", name="sniper.native._native"), 1, "stale"),
    ],
)
def test_errors_become_messages_and_exit_codes(error, code, text, capsys):
    assert run_main(raising(error), []) == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown
    assert text in shown


def test_import_errors_name_the_command_that_mends_them(capsys):
    run_main(raising(ModuleNotFoundError("No module named 'mxnet'", name="mxnet")), [])
    assert "pip install -r requirements.txt" in capsys.readouterr().err
    run_main(raising(ImportError("broken", name="sniper.native._native")), [])
    assert "bash scripts/compile.sh" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        ModuleNotFoundError("x", name="sniper.lost"),
        ImportError("cannot import name 'a' from 'numpy'", name="numpy"),
    ],
)
def test_programming_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run_main(raising(error), [])


def test_debug_variable_shows_tracebacks(monkeypatch, capsys):
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    run_main(raising(DataError("what")), [])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "expected"), [(None, 0), (0, 0), (2, 2), ("a message", 1), (True, 1)]
)
def test_system_exit(code, expected):
    assert run_main(raising(SystemExit(code)), []) == expected


def test_results_and_arguments_pass_through():
    seen = []
    assert run_main(lambda argv: seen.append(argv), ["--a", "b"]) == 0
    assert seen == [["--a", "b"]]
    assert run_main(lambda argv: 7, []) == 7


def test_dispatch_reaches_the_tool(capsys):
    assert main(["print-config", "--doc", "TEST.NMS"]) == 0
    out = capsys.readouterr().out
    assert "TEST.NMS_SIGMA: float = 0.55" in out
    assert "[legacy]" not in out.split("TEST.NMS_SIGMA")[0]


def test_print_config_prints_yaml_that_loads(capsys, tmp_path):
    arguments = ["--cfg", "sniper_res50_e2e", "--set", "gpus", "cpu", "TEST.NMS", "-1"]
    assert print_config.main(arguments) == 0
    (tmp_path / "again.yml").write_text(capsys.readouterr().out)
    again = load_config(tmp_path / "again.yml")
    assert (again.name, again.gpus, again.symbol) == ("sniper_res50_e2e", "cpu", "resnet_mx_50_e2e")


def test_print_config_errors(capsys):
    assert print_config.main(["--cfg", "no_such"]) == 2
    assert print_config.main(["--set", "TRAIN.lrr", "1"]) == 2
    assert print_config.main(["--doc", "no such key"]) == 2
    assert print_config.main(["--nonsense"]) == 2
    assert "did you mean TRAIN.lr?" in capsys.readouterr().err


def test_print_config_needs_no_mxnet():
    code = (
        "import sys; sys.modules['mxnet'] = None\n"
        "from sniper.tools.cli import main\n"
        "sys.exit(main(['print-config', '--cfg', 'sniper_res101_e2e']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("name: sniper_res101_e2e\n")


def test_a_closed_pipe_is_no_traceback():
    command = f"{sys.executable} -m sniper.tools.cli print-config --doc | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("name: text")
    assert done.stderr == ""


def test_print_config_names_the_format_that_was_meant(capsys):
    argv = ["print-config", "--cfg", "sniper_mobilenetv2_toy", "--set", "dataset.dataset", "pascal"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert "dataset: pascal\n" in printed.out
    assert "did you mean 'pascalvoc'?" in printed.err
