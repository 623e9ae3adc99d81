from __future__ import annotations

import subprocess
import sys

from vit_deploy.model.architectures import NAMED_CONFIGS


def test_the_table_is_golden(invoke, golden):
    result = invoke("models")
    assert result.code == 0
    golden("models.txt", result.out)


def test_every_named_architecture_is_in_the_document(invoke):
    rows = invoke("models", "--json").json["models"]
    assert [row["name"] for row in rows] == list(NAMED_CONFIGS)
    base = next(row for row in rows if row["name"] == "vit_base_patch16_224")
    assert base["parameters"] == 86_567_656  # timm's own figure
    assert base["gmacs"] == 17.564
    assert base["image_size"] == [224, 224]


def test_a_search_keeps_what_contains_it(invoke):
    rows = invoke("models", "DISTILLED", "--json").json["models"]
    assert len(rows) == 4
    assert all("distilled" in row["name"] for row in rows)


def test_the_next_command_is_told_on_stderr(invoke):
    result = invoke("models", "giant")
    assert result.err == "next: vit-deploy inspect vit_giant_patch14_224\n"


def test_an_unknown_search_lists_the_nearest_first(invoke):
    result = invoke("models", "vit_bse_patch16_224")
    assert result.code == 2
    assert "did you mean 'vit_base_patch16_224'?" in result.err
    assert result.out == ""


def test_listing_needs_no_torch():
    code = (
        "import sys; from vit_deploy.cli import main\n"
        "try: main(['models'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
