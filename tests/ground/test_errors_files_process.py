"""Messages, atomic writes, and what `import sniper` does to a process."""

import errno
import logging
import os
import pickle
import subprocess
import sys

import pytest

from sniper.errors import ConfigError, DataError, TrainingError
from sniper.files import atomic_write, atomic_write_text
from sniper.process import start_logging, warnings_only


def test_message_has_every_part():
    error = DataError("broken", where="a.jpg", got=3, expected=4, fix="mend it")
    for part in ("broken", "where: a.jpg", "got: 3", "expected: 4", "fix: mend it"):
        assert part in str(error)


def test_errors_cross_process_borders():
    error = pickle.loads(pickle.dumps(ConfigError("wrong key", where="x.yml", got=1)))
    assert isinstance(error, ConfigError)
    assert "where: x.yml" in str(error)


def test_exit_codes():
    assert (TrainingError.exit_code, ConfigError.exit_code, DataError.exit_code) == (1, 2, 3)


def test_full_disk_keeps_the_old_file(tmp_path):
    target = tmp_path / "model.params"
    atomic_write_text(target, "old")

    def full_disk(path):
        path.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TrainingError, match="No space left") as caught:
        atomic_write(target, full_disk)
    assert "model.params" in str(caught.value)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.params"]


def test_any_failure_leaves_no_temporary_file(tmp_path):
    def broken(path):
        path.write_text("half")
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        atomic_write(tmp_path / "x.json", broken)
    assert list(tmp_path.iterdir()) == []


def _run(code, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "MXNET"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()


def test_import_prepares_the_process_without_mxnet():
    code = (
        "import sniper, sys, os, numpy as np;"
        "print('mxnet' in sys.modules, np.bool is bool,"
        "os.environ['MXNET_EXEC_INPLACE_GRAD_SUM_CAP'], os.environ['OMP_NUM_THREADS'])"
    )
    cores = str(len(os.sched_getaffinity(0)))
    assert _run(code) == ["False", "True", "1000", cores]


def test_mxnet_does_not_bring_scikit_learn_and_statistics():
    """But who wants them has them."""
    pytest.importorskip("sklearn")
    code = (
        "import sniper, sys, mxnet;"
        "print(*({'sklearn', 'pandas', 'scipy.stats'} & set(sys.modules)));"
        "print(mxnet.model.SKLEARN_INSTALLED, mxnet.contrib.quantization.stats);"
        "import sklearn.cluster, scipy.stats; print('sklearn' in sys.modules)"
    )
    assert _run(code) == ["False", "None", "True"]


def test_import_keeps_what_the_user_set():
    code = "import sniper, os; print(os.environ['OMP_NUM_THREADS'])"
    assert _run(code, OMP_NUM_THREADS="1") == ["1"]


@pytest.mark.parametrize(("cap", "kept"), [("8", "1000"), ("x", "1000"), ("5000", "5000")])
def test_a_gradient_sum_cap_that_gives_wrong_gradients_is_raised(cap, kept):
    name = "MXNET_EXEC_INPLACE_GRAD_SUM_CAP"
    assert _run(f"import sniper, os; print(os.environ['{name}'])", **{name: cap}) == [kept]


@pytest.mark.parametrize(
    ("asked", "threads"), [("2,1", 2), (" 3", 3), ("0", 1), ("abc", None), ("-1", None)]
)
def test_a_number_of_threads_that_mxnet_aborts_at_becomes_one_that_it_takes(asked, threads):
    code = (
        "import warnings, os; warnings.simplefilter('always');\n"
        "with warnings.catch_warnings(record=True) as told: import sniper\n"
        "print(os.environ['OMP_NUM_THREADS'], *(str(one.message).split()[2] for one in told));"
        "import mxnet"
    )
    words = [] if threads else [repr(asked) + ","]
    expected = threads or len(os.sched_getaffinity(0))
    assert _run(code, OMP_NUM_THREADS=asked) == [str(expected), *words]


def test_log_file_gets_what_the_console_gets(tmp_path):
    path = tmp_path / "run" / "x.log"
    start_logging(path)
    logging.getLogger("sniper.training").info("hello")
    start_logging()
    logging.getLogger("sniper.training").info("not for the file")
    assert path.read_text().endswith("hello\n")


def test_details_stand_in_the_log_file_and_with_verbose_on_the_console(tmp_path, capsys):
    for level, shown in ((logging.INFO, False), (logging.DEBUG, True)):
        start_logging(tmp_path / "x.log", level)
        logging.getLogger("sniper.runs").debug("all figures")
        start_logging()
        assert (tmp_path / "x.log").read_text().count("all figures") == 1 + shown
        assert ("all figures" in capsys.readouterr().err) == shown


def test_quiet_workers_log_warnings_only(capsys):
    start_logging(level=logging.WARNING)
    logging.getLogger("sniper.training").info("hello")
    logging.getLogger("sniper.training").warning("careful")
    start_logging()
    assert "hello" not in (text := capsys.readouterr().err)
    assert "careful" in text


def test_full_disk_ends_the_log_file_with_one_message(tmp_path, capsys):
    start_logging(tmp_path / "x.log")
    handler = logging.getLogger("sniper").handlers[1]

    class FullDisk:
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self):
            pass

        close = flush

    handler.setStream(FullDisk())
    for text in ("one", "two"):
        logging.getLogger("sniper.training").info(text)
    start_logging()
    error = capsys.readouterr().err
    assert error.count("No space left") == 1
    assert "Traceback" not in error
    assert "two" in error, "the console goes on"


@pytest.mark.parametrize("name", ["", ".", "folder"])
def test_a_folder_is_no_file_to_write(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrainingError, match="folder"):
        atomic_write_text(name, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_the_package_is_the_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "sniper", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()


def test_loggers_are_quiet_for_a_while_only(caplog):
    logger = logging.getLogger("sniper.some.room")
    with caplog.at_level("INFO"):
        with pytest.raises(KeyError), warnings_only("sniper.some", "sniper.some.room"):
            logger.info("one")
            logger.warning("two")
            raise KeyError
        logger.info("three")
    assert [record.message for record in caplog.records] == ["two", "three"]
    assert logger.level == logging.NOTSET
