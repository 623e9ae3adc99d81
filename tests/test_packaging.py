"""What is shipped: the exact files of the source distribution and of the wheel, and that the link resolves.

Both are built once, from a copy of the tree, with the setuptools that is installed here.
"""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*-bundle",
    ".work",
)


def build(source: Path, target: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), *flags, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("source") / "vit-deploy"
    shutil.copytree(REPOSITORY, target, symlinks=True, ignore=NOT_SOURCE)
    return target


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel made from it."""
    target = tmp_path_factory.mktemp("built")
    build(tree, target)
    return target


@pytest.fixture(scope="module")
def sdist(built: Path) -> list[str]:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        # Files only; the first folder is the version's.
        return sorted(entry.name.partition("/")[2] for entry in archive.getmembers() if not entry.isdir())


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def unversioned(names: list[str]) -> str:
    version = metadata.version("vit-deploy")
    return "".join(f"{name.replace(version, 'VERSION')}\n" for name in sorted(names))


def test_the_source_distribution_is_golden(sdist: list[str], golden):
    golden("packaging/sdist.txt", unversioned(sdist))


def test_the_wheel_is_golden(wheel: zipfile.ZipFile, golden):
    golden("packaging/wheel.txt", unversioned(wheel.namelist()))


def test_every_module_of_the_library_is_shipped(wheel: zipfile.ZipFile):
    ours = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "vit_deploy").rglob("*.py")}
    # rglob does not follow the link before Python 3.13.
    ours |= {f"vit_deploy/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "exporters").rglob("*.py")}
    shipped = {name for name in wheel.namelist() if name.endswith(".py")}
    assert shipped == ours


def test_only_the_library_and_its_metadata_are_installed(wheel: zipfile.ZipFile):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    version = metadata.version("vit-deploy")
    assert tops == {"vit_deploy", f"vit_deploy-{version}.dist-info"}


def test_the_assets_and_the_type_marker_are_shipped(wheel: zipfile.ZipFile):
    names = set(wheel.namelist())
    assert "vit_deploy/py.typed" in names
    assets = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "vit_deploy" / "assets").rglob("*")
        if path.is_file()
    }
    assert assets <= names


def test_a_wheel_from_the_tree_is_the_wheel_from_the_source_distribution(
    tree: Path, wheel: zipfile.ZipFile, tmp_path: Path
):
    build(tree, tmp_path, "--wheel")
    direct = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    assert sorted(direct.namelist()) == sorted(wheel.namelist())
    for name in direct.namelist():
        if not name.endswith("/RECORD"):
            assert direct.read(name) == wheel.read(name), name


def test_the_link_resolves_in_the_wheel(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    code = """
import vit_deploy, vit_deploy.exporters
from vit_deploy import registry
print(vit_deploy.__file__, vit_deploy.exporters.__file__, *registry.formats(), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    package, exporters, *formats = done.stdout.split()
    assert package == str(tmp_path / "vit_deploy" / "__init__.py")
    assert exporters == str(tmp_path / "vit_deploy" / "exporters" / "__init__.py")
    assert {"onnx", "tensorrt", "torchscript"} <= set(formats)


def test_the_link_is_relative_and_resolves_here():
    link = REPOSITORY / "vit_deploy" / "exporters"
    assert link.is_symlink()
    assert str(link.readlink()) == "../exporters"
    import vit_deploy.exporters

    assert Path(vit_deploy.exporters.__file__).resolve() == REPOSITORY / "exporters" / "__init__.py"


def test_the_suites_lie_in_the_package_and_are_linked_from_the_benchmarks(wheel: zipfile.ZipFile):
    link = REPOSITORY / "benchmarks" / "suites"
    assert link.is_symlink()
    assert str(link.readlink()) == "../vit_deploy/assets/suites"
    here = {path.name for path in link.glob("*.toml")}
    assert {"quick.toml", "cpu.toml", "gpu.toml", "release.toml"} <= here
    folder = "vit_deploy/assets/suites/"
    assert {name.removeprefix(folder) for name in wheel.namelist() if name.startswith(folder)} == here


def test_the_metadata_says_what_the_readme_says(wheel: zipfile.ZipFile):
    name = next(entry for entry in wheel.namelist() if entry.endswith("dist-info/METADATA"))
    found = email.message_from_bytes(wheel.read(name))
    assert found["Name"] == "vit-deploy"
    assert found["License-Expression"] == "Apache-2.0"
    assert set(found.get_all("Provides-Extra")) == {
        "cpu", "dev", "gpu", "hf", "loadgen", "openvino", "report", "rtx", "timm",
    }  # fmt: skip
    core = [entry for entry in found.get_all("Requires-Dist") if "extra ==" not in entry]
    # The two ONNX Runtimes write the same folder: the core must choose neither.
    assert not [entry for entry in core if entry.startswith(("onnxruntime", "tensorrt"))]


def test_no_file_of_the_project_names_an_index():
    for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert "index-url" not in text, name
        assert "find-links" not in text, name


def test_every_dependency_has_a_pin():
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in text.splitlines() if "==" in line}
    wanted = set()
    for requirement in metadata.requires("vit-deploy") or []:
        extras = {"gpu"}  # not a part of [dev]
        if not any(f'extra == "{extra}"' in requirement for extra in extras):
            wanted.add(requirement.partition(">")[0].partition("[")[0].lower().replace("_", "-"))
    assert wanted - {"vit-deploy"} <= pinned
