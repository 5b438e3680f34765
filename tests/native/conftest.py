"""Fixtures of the native tests: the CUDA kernels, emulated and on a GPU."""

from __future__ import annotations

import pytest

from tests.native import cuda_harness, cuda_sources

GPU, NO_GPU_REASON = cuda_harness.find_gpu()


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
    return cuda_harness.Backend(cuda_harness.HostDevice(cuda_sources.build_reference(folder)))


@pytest.fixture(scope="session")
def gpu():
    """The launchers on a real GPU; skips without one."""
    if not GPU:
        pytest.skip(NO_GPU_REASON)
    return cuda_harness.Backend(cuda_harness.GpuDevice(*GPU))


@pytest.fixture(scope="session")
def emulated_cuda(cuda_build_folder):
    """The launchers of all CUDA sources on the host emulation."""
    return cuda_harness.Backend(
        cuda_harness.EmulatedDevice(*cuda_sources.build_emulated(cuda_build_folder))
    )


@pytest.fixture(scope="session", params=["emulated", "gpu"] if GPU else ["emulated"])
def cuda(request):
    """The launchers, emulated everywhere, and on a real GPU where there is one."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated_cuda")
    return request.getfixturevalue("gpu")
