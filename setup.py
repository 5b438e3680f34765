"""Builds the package: the MXNet operator library and the Cython face of the same kernels.

The metadata and the native build live here; tools are configured in pyproject.toml.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import re
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NATIVE = Path("lib/sniper/native")  # relative: setuptools refuses absolute source paths
OPS_LIBRARY = "libsniper_ops"
MXNET_VERSION = "1.9.1"

# No -march and no -ffast-math: the binaries are portable. No contraction: results do not depend on
# whether the processor has fused multiply-add. -fno-trapping-math changes no result either: it lets
# the compiler turn comparisons of floats into SIMD code.
COMPILE_ARGS = ["-std=c++17", "-g0", "-fopenmp", "-ffp-contract=off", "-fno-trapping-math"]
# The alignment keeps the speed of hot loops from depending on what else is linked before them.
# Each library uses its own copy of the kernels. No word on the calling convention of vectors: the
# functions that take them are inlined.
KERNEL_ARGS = [
    *COMPILE_ARGS, "-O3", "-falign-functions=64", "-falign-loops=32", "-fvisibility=hidden",
    "-Wno-psabi",
]  # fmt: skip
# What checks arguments and calls the kernels has no loops that are worth a longer build.
FACE_ARGS = [*COMPILE_ARGS, "-O1"]
LINK_ARGS = ["-fopenmp"]

# What MXNet 1.9.1 works with: no NumPy 2, which newer OpenCV asks for, and distutils.
WITH_MXNET = [
    "numpy<2",
    "opencv-python-headless<4.12",
    "setuptools; python_version >= '3.12'",
]


def sources(pattern: str) -> list[str]:
    """Sources of all operator folders: a new folder needs no change here."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / NATIVE).glob(pattern))


def mxnet_folder() -> Path | None:
    """Folder of the installed MXNet, found without importing it; None without MXNet."""
    spec = importlib.util.find_spec("mxnet")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


class BuildNative(build_ext):
    """Compiles on all processors, links the kernels into both libraries, keeps what is up to date.

    What setuptools do themselves is to compile the sources of an extension one after the other.
    """

    def build_extensions(self) -> None:
        """Compiles everything, then lets setuptools link the extensions."""
        mxnet = mxnet_folder()
        if mxnet is None:
            # Detection with ONNX graphs, the tools for data and the chips need the other one only.
            self.warn(
                "MXNet is not installed: its operator library is left out, and nothing can be "
                f"trained. To have it, `pip install mxnet=={MXNET_VERSION}` and build again."
            )
            self.extensions = [e for e in self.extensions if not e.name.endswith(OPS_LIBRARY)]
        kernels = Extension(
            "kernels", sources("*/*_cpu.cc"), include_dirs=[str(NATIVE)],
            extra_compile_args=KERNEL_ARGS,
        )  # fmt: skip
        for extension in self.extensions:
            if mxnet is not None and extension.name.endswith(OPS_LIBRARY):
                extension.include_dirs += [str(mxnet / "include"), str(mxnet / "src")]
        objects = self.compile_all([kernels, *self.extensions])
        for extension in self.extensions:
            # Of an inline function that both have, the linker takes the first.
            extension.extra_objects = [*objects[kernels.name], *objects[extension.name]]
            extension.depends, extension.sources = extension.extra_objects, []
        super().build_extensions()

    def compile_all(self, extensions: list[Extension]) -> dict[str, list[str]]:
        """Objects of each extension, the largest sources compiled first."""
        headers = [ROOT / path for path in sources("**/*.h")]
        pairs = [(extension, source) for extension in extensions for source in extension.sources]
        pairs.sort(key=lambda pair: (ROOT / pair[1]).stat().st_size, reverse=True)
        processors = self.parallel or len(os.sched_getaffinity(0))
        with concurrent.futures.ThreadPoolExecutor(int(processors)) as pool:
            made = pool.map(lambda pair: self.compile_one(*pair, headers), pairs)
            objects: dict[str, list[str]] = {extension.name: [] for extension in extensions}
            for (extension, _), target in zip(pairs, made):
                objects[extension.name].append(target)
        return {name: sorted(targets) for name, targets in objects.items()}

    def compile_one(self, extension: Extension, source: str, headers: list[Path]) -> str:
        """Path of the object of one source, compiled when anything is newer."""
        (target,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
        newest = max(path.stat().st_mtime for path in [ROOT / source, ROOT / "setup.py", *headers])
        if self.force or not Path(target).is_file() or Path(target).stat().st_mtime < newest:
            self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=extension.include_dirs,
                extra_postargs=extension.extra_compile_args,
            )
        return target

    def get_ext_filename(self, fullname: str) -> str:
        """The operator library is no Python module, so its name has no interpreter tag."""
        path = Path(super().get_ext_filename(fullname))
        if fullname.rpartition(".")[2] == OPS_LIBRARY:
            path = path.with_name(f"{OPS_LIBRARY}.so")
        return str(path)


class BuildPackage(build_py):
    """Copies the recipes into the package; an editable install reads them from the checkout."""

    def run(self) -> None:
        """Builds the modules, then adds `sniper/recipes`."""
        super().run()
        if not getattr(self, "editable_mode", False):
            for source, target in self.recipes().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def recipes(self) -> dict[Path, Path]:
        """Each yml of the checkout and its place in the built package."""
        built = Path(self.build_lib) / "sniper" / "recipes"
        # One folder: recipes extend each other by the names of their files.
        return {path: built / path.name for path in sorted((ROOT / "configs").rglob("*.yml"))}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files of the built package, recipes included."""
        return super().get_outputs(include_bytecode) + [str(p) for p in self.recipes().values()]


def version() -> str:
    """The version that `sniper.__version__` states."""
    text = (ROOT / "lib" / "sniper" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise SystemExit("lib/sniper/__init__.py states no __version__.")
    return match.group(1)


def long_description() -> str:
    """The README, where there is one."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


def extensions() -> list[Extension]:
    """The operator library for MXNet and the Cython module."""
    common = {
        "include_dirs": [str(NATIVE)],
        "extra_compile_args": FACE_ARGS,
        "extra_link_args": LINK_ARGS,
        "language": "c++",
    }
    glue = [*sources("*_mxnet.cc"), *sources("*/*_mxnet.cc")]
    python = Extension("sniper.native._native", [str(NATIVE / "_native.pyx")], **common)
    library = Extension(f"sniper.native.{OPS_LIBRARY}", glue, **common)
    return [library, *cythonize([python], language_level=3, include_path=[str(NATIVE)])]


setup(
    name="sniper-mxnet",
    version=version(),
    description="SNIPER: efficient multi-scale training of object detectors, on stock MXNet",
    author="SNIPER on MXNet maintainers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["object detection", "multi-scale training", "SNIPER", "AutoFocus", "MXNet"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C++",
        "Programming Language :: Cython",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    long_description=long_description(),
    long_description_content_type="text/markdown",
    python_requires=">=3.9",
    package_dir={"": "lib"},
    packages=find_packages("lib"),
    # The CUDA kernels go along where scripts/compile.sh --cuda has built them.
    package_data={
        "sniper": ["py.typed"],
        "sniper.native": ["_native.pyi", "libsniper_cuda.so"],
        "sniper.tools.page": ["style.css", "script.js"],
    },
    include_package_data=False,
    zip_safe=False,
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildNative, "build_py": BuildPackage},
    install_requires=[
        "numpy>=1.23",
        "opencv-python-headless>=4.5",
        "pycocotools>=2.0.6",  # run lengths of masks, and the evaluation of reference
        "faster-coco-eval>=1.8; python_version >= '3.10'",
        "pyyaml>=5.4",
        "easydict>=1.10",
        "matplotlib>=3.5",
    ],
    # The MXNet wheels share one import folder: choose exactly one, or none.
    extras_require={
        "cpu": [f"mxnet=={MXNET_VERSION}", *WITH_MXNET],
        "cu110": [f"mxnet-cu110=={MXNET_VERSION}", *WITH_MXNET],
        "cu112": [f"mxnet-cu112=={MXNET_VERSION}", *WITH_MXNET],
        "hotcoco": ["hotcoco>=1.3; python_version >= '3.10'"],  # the fastest COCO evaluation
        "orjson": ["orjson>=3.11"],  # annotation files in two thirds of the time
        "tensorboard": ["tensorboardX"],
        "cluster": ["scikit-learn>=1.0"],  # k-means of `sniper cluster-classes`
        "matlab": ["scipy>=1.7"],  # the lists of ILSVRC
        "openimages": ["pandas>=1.5,<3"],  # the tables of Open Images; 3 reads ids as numbers
        # Detectors as ONNX graphs, without MXNet. Older engines have no deformable convolution.
        "onnx": ["onnxruntime>=1.25"],
        "openvino": ["openvino>=2025.0"],
        # Making them, with MXNet beside: newer ml_dtypes, which onnx brings, ask for NumPy 2.
        "export": ["onnx>=1.18", "onnxruntime>=1.25", "ml_dtypes<0.6"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"],
        "wider": ["scipy>=1.7", "h5py>=3.1"],  # the lists of WIDER FACE
    },
    entry_points={
        "console_scripts": [
            "sniper-train = sniper.tools.train:main",
            "sniper-test = sniper.tools.test:main",
            "sniper-demo = sniper.tools.demo:main",
            "sniper = sniper.tools.cli:main",
        ]
    },
)
