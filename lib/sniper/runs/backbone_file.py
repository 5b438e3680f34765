"""The file of pretrained weights that a run begins with: where it is, and how to get it."""

from __future__ import annotations

from pathlib import Path

from sniper.config.yaml_files import recipe_folders
from sniper.errors import DataError

# What scripts/download_pretrained_models.sh calls the files that it can fetch.
_NETWORKS = {
    "mobilenetv2": "mobilenetv2",
    "resnet50_gluon": "resnet50",
    "resnet101_gluon": "resnet101",
}


def backbone_file(prefix: str, epoch: int) -> Path | None:
    """`<prefix>-0000.params`; None where a recipe starts from random weights.

    A relative prefix that leads nowhere from the working folder is looked for in the checkout,
    where the download script puts its files: recipes train from any folder.

    Args:
        prefix: `network.pretrained`.
        epoch: `network.pretrained_epoch`.
    """
    if not prefix:
        return None
    path = Path(f"{prefix}-{epoch:04d}.params")
    if path.is_absolute() or path.exists():
        return path
    in_checkout = (folder.parents[1] / path for folder in recipe_folders())
    return next((candidate for candidate in in_checkout if candidate.is_file()), path)


def check_backbone(path: Path) -> None:
    """Says how to get a backbone that is missing.

    Raises:
        DataError: there is no such file.
    """
    if path.is_file():
        return
    prefix = path.with_name(path.name.rpartition("-")[0])
    if prefix.is_file():
        raise DataError(
            "network.pretrained names a file; it wants the begin of a name",
            where=prefix.absolute(),
            expected="X for the weights X-0000.params (network.pretrained_epoch is the number)",
            fix="call the weights so; an archive of `sniper export` is no backbone",
        )
    beside = sorted(file.name for file in path.parent.glob("*.params"))
    network = _NETWORKS.get(path.stem.rsplit("-", 1)[0])
    get = "train it, or put a copy there (scripts/download_pretrained_models.sh --help)"
    if network:
        get = f"fetch it with: bash scripts/download_pretrained_models.sh {network}"
    raise DataError(
        "the pretrained weights of network.pretrained are missing",
        where=path.absolute(),
        got=", ".join(beside) if beside else f"no .params file in {path.parent.absolute()}",
        fix=f"{get}; or start from random weights, which takes longer: --set network.pretrained ''",
    )
