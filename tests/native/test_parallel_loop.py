"""`parallel_for`: an exception in a thread must reach the caller and not end the process."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "lib" / "sniper" / "native"
SOURCE = r"""
#include <atomic>
#include <cstring>
#include <new>
#include <stdexcept>

#include "common/parallel.h"

// Runs `tasks` tasks, of which every one from `bad` on throws. Writes what arrives, returns how
// many tasks ended well.
extern "C" long long run(long long tasks, long long bad, int memory, char* caught) {
  std::atomic<long long> done{0};
  try {
    sniper::parallel_for(tasks, [&](long long task) {
      if (task >= bad && memory) throw std::bad_alloc();
      if (task >= bad) throw std::runtime_error("task failed");
      ++done;
    });
  } catch (const std::exception& error) {
    std::strcpy(caught, error.what());
  }
  return done;
}
"""


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "loop.cc").write_text(SOURCE)
    library = folder / "libloop.so"
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-fopenmp", "-fPIC", "-shared", f"-I{NATIVE}",
         str(folder / "loop.cc"), str(NATIVE / "common" / "parallel_cpu.cc"), "-o", str(library)],
        check=True, timeout=120,
    )  # fmt: skip
    run = ctypes.CDLL(str(library)).run
    run.restype = ctypes.c_longlong
    run.argtypes = [ctypes.c_longlong, ctypes.c_longlong, ctypes.c_int, ctypes.c_char_p]
    return run


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    omp.omp_set_num_threads(request.param)
    yield request.param
    omp.omp_set_num_threads(before)


@pytest.mark.parametrize("tasks", [0, 1, 7, 1000])
def test_every_task_runs_once(loop, threads, tasks):
    caught = ctypes.create_string_buffer(100)
    assert loop(tasks, tasks, 0, caught) == tasks and not caught.value


@pytest.mark.parametrize(("memory", "text"), [(0, b"task failed"), (1, b"std::bad_alloc")])
def test_the_first_exception_arrives_and_ends_the_loop(loop, threads, memory, text):
    for bad in (0, 3, 999):
        caught = ctypes.create_string_buffer(100)
        assert loop(1000, bad, memory, caught) <= bad
        assert caught.value == text
