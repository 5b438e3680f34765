"""Fixtures of the native tests: the CUDA kernels, emulated and on a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def load_helper(name):
    """A module of this folder; the tests are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# In this order: each may import those above it.
SOURCES = load_helper("cuda_sources")
DEVICES = load_helper("cuda_devices")
HARNESS = load_helper("cuda_harness")
CALLS = load_helper("cuda_calls")
CASES = load_helper("cuda_cases")
SCENARIOS = load_helper("cuda_scenarios")
GPU, NO_GPU_REASON = HARNESS.find_gpu()


@pytest.fixture(scope="session")
def cuda_sources():
    """The module cuda_sources.py."""
    return SOURCES


@pytest.fixture(scope="session")
def cuda_harness():
    """The module cuda_harness.py."""
    return HARNESS


@pytest.fixture(scope="session")
def no_gpu_reason():
    """Why the tests of this run have no GPU; empty when they have one."""
    return NO_GPU_REASON


@pytest.fixture(scope="session")
def cuda_build_folder(request, tmp_path_factory):
    """Where emulated libraries are kept between runs."""
    if request.config.pluginmanager.has_plugin("cacheprovider"):
        return request.config.cache.mkdir("sniper_cuda_emulation")
    return tmp_path_factory.mktemp("sniper_cuda_emulation")


@pytest.fixture(scope="session")
def cpu(request, tmp_path_factory):
    """The CPU kernels behind the signatures of the launchers."""
    if request.config.pluginmanager.has_plugin("cacheprovider"):
        folder = request.config.cache.mkdir("sniper_cpu_reference")
    else:
        folder = tmp_path_factory.mktemp("sniper_cpu_reference")
    return HARNESS.Backend(HARNESS.HostDevice(SOURCES.build_reference(folder)))


@pytest.fixture(scope="session")
def gpu():
    """The launchers on a real GPU; skips without one."""
    if not GPU:
        pytest.skip(NO_GPU_REASON)
    return HARNESS.Backend(HARNESS.GpuDevice(*GPU))


@pytest.fixture(scope="session")
def emulated_cuda(cuda_build_folder):
    """The launchers of all CUDA sources on the host emulation."""
    return HARNESS.Backend(HARNESS.EmulatedDevice(*SOURCES.build_emulated(cuda_build_folder)))


@pytest.fixture(scope="session", params=["emulated", "gpu"] if GPU else ["emulated"])
def cuda(request):
    """The launchers, emulated everywhere, and on a real GPU where there is one."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated_cuda")
    return request.getfixturevalue("gpu")
