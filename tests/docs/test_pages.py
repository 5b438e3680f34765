"""Every code block of every document is run as printed, or says why not."""

from __future__ import annotations

from collections import Counter

import pytest

from sniper.config import load_config
from tests.docs.blocks import CODE, DOCUMENTS, LANGUAGES, MARK, ROOT, all_blocks, blocks_of
from tests.docs.checkout import Checkout, as_this_processor_needs_it, yaml_of
from tests.docs.test_docs import run_python

BLOCKS = all_blocks()
SHELL = [block for block in BLOCKS if block.language == "bash" and block.run_by == "default"]
YAML = [block for block in BLOCKS if block.language == "yaml"]
SLOW_PAGES = [page for page in DOCUMENTS if any(b.run_by == "slow" for b in blocks_of(page))]
# Of every training and data set that the pages of the slow tests make.
UPDATES = 8
FEW = "--train 12 --val 8 --test 2 --test-dev 2 --workers 1"


def test_every_block_is_run_or_says_why_not():
    assert [str(b) for b in BLOCKS if b.language not in LANGUAGES] == [], "a block has no language"
    wrong = [str(b) for b in BLOCKS if b.mark == "not run" and len(b.note.split()) < 2]
    wrong += [str(b) for b in BLOCKS if b.mark == "file" and b.language != "yaml"]
    wrong += [str(b) for b in BLOCKS if b.mark and b.language == "text"]
    assert wrong == []
    numbers = Counter(block.run_by for block in BLOCKS if block.language in CODE)
    assert sum(numbers.values()) == sum(block.language in CODE for block in BLOCKS)
    # What no suite runs is the exception: GPUs, networks, other machines, servers.
    assert numbers["parsed"] < numbers["default"] + numbers["slow"], numbers


@pytest.mark.parametrize("page", DOCUMENTS)
def test_no_fence_and_no_mark_is_overlooked(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    blocks = blocks_of(page)
    assert sum(line.lstrip().startswith("```") for line in lines) == 2 * len(blocks)
    marks = sum(bool(MARK.match(line.strip())) for line in lines)
    comments = sum(bool(line.strip().startswith("<!--")) for line in lines)
    assert marks == comments == sum(bool(block.mark) for block in blocks)


def test_marks_are_read():
    text = "a\n\n<!-- not run: takes a GPU -->\n```bash\nsniper doctor\n```\n```\nx\n```\n"
    first, second = blocks_of("README.md", text)
    assert (first.mark, first.note, first.line) == ("not run", "takes a GPU", 5)
    assert (first.run_by, second.language, second.mark) == ("parsed", "", "")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Checkout:
    """A checkout with two small data sets, before anything is trained."""
    tiny = "--train 4 --val 1 --test 1 --test-dev 1 --workers 1"
    place = Checkout.make(tmp_path_factory.mktemp("fresh"), tiny)
    place.must("sniper make-toy-data data/mine --classes 3")
    return place


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_shell_block(block, fresh):
    """In the folder of all pages: a recipe of another page has been put back before."""
    for other in blocks_of(block.page):
        if other.mark == "file":
            (fresh.folder / other.note).write_text(other.text)
    fresh.must(block.text)
    (fresh.folder / "my.yml").write_text(yaml_of("docs/your_data.md", "my.yml"))


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_block(block, tmp_path):
    """A recipe loads; a part of one does, in the place of the reader's."""
    (tmp_path / "my.yml").write_text(yaml_of("docs/your_data.md", "my.yml"))
    path = tmp_path / (block.note or "part.yml")
    text = block.text if "_BASE_" in block.text else f"_BASE_: my.yml\n{block.text}"
    path.write_text(text)
    cfg = load_config(str(path))
    assert cfg.TRAIN.SCALES


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("page", SLOW_PAGES)
def test_page(page, checkout, tmp_path):
    """All blocks in their order; trainings are short, data sets small, all else as printed."""
    blocks = [block for block in blocks_of(page) if block.run_by in ("default", "slow")]
    place = checkout.copy(tmp_path / "checkout")
    place.stop_trainings_after(UPDATES)
    place.make_programs(FEW)
    for block in blocks:
        if block.language == "yaml":
            if block.mark == "file":
                (place.folder / block.note).write_text(block.text)
                needs_backbone(block.text, place)
        elif block.language == "bash":
            done = place.run(as_this_processor_needs_it(block.text))
            said = f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
            assert done.returncode == 0, f"{block}\n{block.text}\n{said}"
        elif block.run_by == "slow":
            run_python(block.text, place.folder, place.environment())


def needs_backbone(recipe: str, place: Checkout) -> None:
    backbone = place.folder / "data" / "pretrained_model" / "mobilenetv2-0000.params"
    if recipe.startswith("_BASE_: sniper_mobilenetv2_coco_mini") and not backbone.is_file():
        pytest.skip("the imported backbone is not here: set SNIPER_SHARED")
