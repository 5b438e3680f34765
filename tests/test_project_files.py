"""Files about the project that must agree with each other."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import sniper

ROOT = Path(__file__).resolve().parents[1]


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert str(citation["version"]) == sniper.__version__
    assert re.findall(r"^## ([0-9.]+)", changelog, re.MULTILINE)[0] == sniper.__version__


def test_pre_commit_runs_the_checks_of_the_test_script():
    script = (ROOT / "scripts" / "test.sh").read_text(encoding="utf-8")
    checks = re.search(r"^ensure_environment\n(.*?)^# Each of", script, re.M | re.S)[1]
    # Types are checked while the documentation is built.
    checks = checks.replace(" & site=$!", "").replace("wait $site\n", "")
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repo,) = config["repos"]
    assert [f"{hook['entry']}\n" for hook in repo["hooks"]] == [
        f".venv/bin/{line}" for line in checks.splitlines(keepends=True)
    ]
    # Each hook looks at the whole tree, as the script does.
    assert [hook["pass_filenames"] for hook in repo["hooks"]] == [False] * len(repo["hooks"])
