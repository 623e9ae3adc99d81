"""The library with none of its extras: every module imports, and every command explains itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vit_deploy.cli import COMMANDS

EXTRAS = (
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "openvino",
    "transformers",
    "timm",
    "jinja2",
    "mlperf_loadgen",
    "skimage",
    "sklearn",
    "torchvision",
    "pytest",
    "hypothesis",
)
"""What no plain `pip install vit-deploy` is sure to bring."""

BARE = f"""
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nothing())
"""

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "numpy",
    "transformers",
    "timm",
    "PIL",
    "pydantic",
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )


def test_every_module_imports():
    done = run(
        BARE
        + """
import importlib, pkgutil
import vit_deploy

def fail(name):
    raise

names = [entry.name for entry in pkgutil.walk_packages(vit_deploy.__path__, "vit_deploy.", onerror=fail)]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_every_command_explains_itself():
    done = run(
        BARE
        + f"""
from vit_deploy.cli import main

for name in {list(COMMANDS)!r}:
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert not end.code, (name, end.code)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == len(COMMANDS)


@pytest.mark.parametrize("command", ["formats", "doctor", "models"])
def test_the_commands_that_look_around_work(command: str):
    done = run(BARE + f"from vit_deploy.cli import main\nmain([{command!r}])")
    # The distributions are still there by their metadata, so `doctor` is right to call them broken.
    assert done.returncode == (4 if command == "doctor" else 0), done.stderr
    assert "Traceback" not in done.stderr
    if command == "formats":
        assert "pip install 'vit-deploy[cpu]'" in done.stderr


def test_the_first_help_page_imports_nothing_heavy():
    done = run(
        f"""
import sys
from vit_deploy.cli import main

try:
    main(["--help"])
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_page_imports_a_backend(name: str):
    backends = [module for module in HEAVY if module not in {"numpy", "PIL", "pydantic"}]
    done = run(
        f"""
import sys
from vit_deploy.cli import main

try:
    main([{name!r}, "--help"])
except SystemExit:
    pass
print([module for module in {backends!r} if module in sys.modules], file=sys.stderr)
"""
    )
    assert done.stderr == "[]\n"


def test_the_exporters_refuse_to_be_imported_under_another_name():
    repository = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", "import exporters"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "import vit_deploy.exporters" in done.stderr
