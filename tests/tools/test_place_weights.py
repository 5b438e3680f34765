"""Weight files of unknown origin: compared with a recipe's network, then put in place."""

import io
import tarfile
import zipfile

import mxnet as mx
import numpy as np
import pytest

from sniper.config import load_config
from sniper.errors import DataError
from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.initialisers import is_head
from sniper.models.weights import initialise, read_params, with_test_params, write_params
from sniper.runs.resolve import detector_spec
from sniper.tools.place_weights import main
from sniper.tools.weights.unpack import unpack

RECIPE = "sniper_mobilenetv2_toy"
SMALL = ["network.WIDTH", "0.25", "network.FC_CHANNELS", "16", "network.ROI_CHANNELS", "16"]


class Copy:
    """A detector's weights as somebody kept them, and a place for runs."""

    def __init__(self, root):
        self.root = root
        self.path = root / "kept.params"
        self.target = root / "output" / RECIPE / "train" / "SNIPER-0002.params"
        cfg = load_config(RECIPE, SMALL)
        spec = detector_spec(cfg, train=True, batch_images=1, fp16=False)
        self.arg, self.aux, _ = initialise(
            build_detector(spec, train=True), train_input_shapes(spec, 64), None, 0
        )
        write_params(self.path, with_test_params(self.arg), self.aux)

    def place(self, path, *flags, overrides=()):
        own = [*SMALL, "output_path", str(self.root / "output"), *overrides]
        return main([str(path), "--cfg", RECIPE, *flags, "--set", *own])


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_a_fitting_file_is_placed_unchanged_and_once(copy, capsys):
    assert copy.place(copy.path, "--check") == 0
    assert not copy.target.exists()
    assert copy.place(copy.path) == 0
    assert copy.target.read_bytes() == copy.path.read_bytes()
    assert copy.place(copy.path) == 0
    assert "same file already" in capsys.readouterr().out


def test_another_file_is_replaced_on_demand_only(copy, capsys):
    copy.target.parent.mkdir(parents=True)
    copy.target.write_bytes(b"mine")
    assert copy.place(copy.path) == 3
    assert copy.target.read_bytes() == b"mine" and "--overwrite" in capsys.readouterr().err
    assert copy.place(copy.path, "--overwrite") == 0
    assert copy.target.read_bytes() == copy.path.read_bytes()


def test_half_precision_tensors_fit_and_stay_as_they_are(copy):
    halves = {name: value.astype("float16") for name, value in copy.arg.items()}
    write_params(copy.path, halves, copy.aux)
    assert copy.place(copy.path, "--epoch", "7") == 0
    arg, _ = read_params(copy.target.with_name("SNIPER-0007.params"))
    assert arg["cls_score_weight"].dtype == np.float16


def test_other_networks_are_refused_by_name(copy, capsys):
    del copy.aux["last-1x1-conv-batchnorm_moving_var"]
    copy.arg["cls_score_bias"] = mx.nd.zeros((81,))
    write_params(copy.path, copy.arg, copy.aux)
    assert copy.place(copy.path) == 3
    message = capsys.readouterr().err
    assert "last-1x1-conv-batchnorm_moving_var is missing" in message
    assert "cls_score_bias (81,), expected (11,)" in message
    assert not copy.target.exists()


def test_a_backbone_needs_no_heads(copy):
    backbone = {name: value for name, value in copy.arg.items() if not is_head(name)}
    write_params(copy.path, backbone, copy.aux)
    assert copy.place(copy.path) == 3
    prefix = copy.root / "pretrained" / "mine"
    overrides = ("network.pretrained", str(prefix))
    assert copy.place(copy.path, "--backbone", overrides=overrides) == 0
    assert (prefix.parent / "mine-0000.params").read_bytes() == copy.path.read_bytes()
    del backbone["first-3x3-conv-conv2d_weight"]
    write_params(copy.path, backbone, copy.aux)
    assert copy.place(copy.path, "--backbone", "--overwrite", overrides=overrides) == 3
    assert copy.place(copy.path, "--backbone") == 3


def test_mask_recipes_want_their_mask_head(copy, capsys):
    overrides = ("symbol", "mobilenetv2_e2e_mask", "TRAIN.WITH_MASK", "True")
    assert copy.place(copy.path, overrides=overrides) == 3
    assert "mask_offset_weight is missing" in capsys.readouterr().err


def test_archives_are_searched_for_the_file(copy, capsys):
    path = copy.root / "release.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(copy.path, "a/one.params")
        archive.write(copy.path, "b/two.params")
    assert copy.place(path) == 3
    refusal = capsys.readouterr().err
    assert "a/one.params, b/two.params" in refusal and "--member" in refusal
    assert copy.place(path, "--member", "two.params") == 0
    assert copy.place(path, "--member", "none.params") == 3
    assert copy.place(path, "--member", "x/b/two.params") == 3
    assert copy.place(copy.path, "--member", "one.params", "--check") == 3
    assert "no archive" in capsys.readouterr().err
    assert copy.place(copy.root / "nothing.zip") == 3


def test_a_release_of_several_detectors_of_one_file_name(copy, capsys):
    """As the authors packed theirs: every detector is called the same, in its own folder."""
    other = copy.path.read_bytes()[:-1]
    path = copy.root / "release.tar.gz"
    members = {
        f"./output/one/{RECIPE}/train/SNIPER-0002.params": copy.path.read_bytes(),
        "./output/two/other_recipe/train/SNIPER-0002.params": other,
        "./output/three/other_recipe/val/SNIPER-0002.params": other,
    }
    tar_of(path, *members.items())
    assert copy.place(path) == 0
    assert f"taking output/one/{RECIPE}/train/SNIPER-0002.params" in capsys.readouterr().out
    assert copy.place(path, "--member", "SNIPER-0002.params") == 3
    refusal = capsys.readouterr().err
    for name in members:
        # Every name that is printed can be given, and so can its end.
        shown = name.removeprefix("./")
        assert shown in refusal
        status = 0 if RECIPE in name else 3
        assert copy.place(path, "--member", shown) == status
        assert copy.place(path, "--member", "/".join(shown.split("/")[-3:])) == status
    assert "damaged" in capsys.readouterr().err


def test_broken_weights_are_refused(copy, capsys):
    copy.path.write_bytes(copy.path.read_bytes()[:9999])
    assert copy.place(copy.path) == 3
    assert "damaged" in capsys.readouterr().err


def tar_of(path, *entries):
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                name, data = entry
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil.params", b"x")],
        [("/evil.params", b"x")],
        [("a/../../evil.params", b"x")],
        [("good.params", b"x"), ("..\\evil.txt", b"x")],
        [link("evil.params", "/etc/passwd")],
        [link("evil.params", "good.params", tarfile.LNKTYPE)],
        [link("evil.params", "", tarfile.FIFOTYPE)],
        [("a/same.params", b"x"), ("a/./same.params", b"y")],
    ],
)
def test_unsafe_archives_write_nothing(tmp_path, entries):
    folder = tmp_path / "inner" / "folder"
    folder.mkdir(parents=True)
    path = tar_of(tmp_path / "a.tar.gz", *entries)
    with pytest.raises(DataError, match=r"a\.tar\.gz"):
        unpack(path, folder, [".params"])
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == [path]


@pytest.mark.parametrize("name", ["../evil.params", "/evil.params", "C:evil.params"])
def test_unsafe_zips_write_nothing(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.params", b"x")
        archive.writestr(name, b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"not safe"):
        unpack(tmp_path / "a.zip", tmp_path / "folder", [".params"])
    assert not list((tmp_path / "folder").iterdir())


def test_wanted_members_come_out_in_their_folders(tmp_path):
    members = [("./x/y/w.params", b"weights"), ("x/z/w.params", b"others"), ("x/readme", b"r")]
    path = tar_of(tmp_path / "a.tgz", *members)
    folder = tmp_path / "out"
    folder.mkdir()
    files = unpack(path, folder, [".params"])
    assert files == [folder / "x/y/w.params", folder / "x/z/w.params"]
    assert [file.read_bytes() for file in files] == [b"weights", b"others"]
    assert not (folder / "x/readme").exists()


@pytest.mark.parametrize("name", ["a.tgz", "a.zip", "a.tar"])
def test_damaged_archives_are_data_errors(tmp_path, name):
    path = tar_of(tmp_path / "whole.tgz", ("w.params", bytes(range(256)) * 999))
    (tmp_path / name).write_bytes(path.read_bytes()[:-40] if name == "a.tgz" else b"rubbish")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        unpack(tmp_path / name, tmp_path, [".params"])
