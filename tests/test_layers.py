from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None


def test_imports_point_one_way():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_stands_in_a_layer():
    if tomllib is None:
        return
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = " ".join(settings["tool"]["importlinter"]["contracts"][0]["layers"])
    named = {word.strip().removeprefix("vit_deploy.") for word in layers.replace("|", " ").split()}
    home = REPOSITORY / "vit_deploy"
    found = {
        entry.stem
        for entry in home.iterdir()
        if (entry.suffix == ".py" or (entry / "__init__.py").exists()) and not entry.stem.startswith("__")
    }
    assert found == named
