"""README and docs: commands parse, those marked `<!-- run -->` run, links resolve, all is described.

The marked blocks of a page run one after the other in a folder that holds `my-vit` (the digits model), a
`bundle` of it in ONNX, `photo.png` and `photos/`; those marked `<!-- run: slow -->` with `make test-all`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from vit_deploy import errors
from vit_deploy.bundle.manifest import Manifest
from vit_deploy.cli import COMMANDS, group

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
DIGITS = REPOSITORY / "vit_deploy" / "assets" / "digits"
BLOCK = re.compile(r"(?:<!-- (run(?:: slow)?) -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Every block of commands on a page: its mark (``run``, ``run: slow`` or nothing), and a shell's text."""
    found = []
    for mark, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "sh" or mark:
            found.append((mark, text if language == "sh" else f"python - <<'END'\n{text}END\n"))
    return found


def page_id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def runnable() -> list[object]:
    """Each page with its marked blocks in order, and again with the slow ones where there are any."""
    found = []
    for page in PAGES:
        marked = [(mark, text) for mark, text in blocks(page) if mark]
        quick = "".join(text for mark, text in marked if mark == "run")
        if quick:
            found.append(pytest.param(quick, id=page_id(page)))
        if any(mark != "run" for mark, _ in marked):
            whole = "".join(text for _, text in marked)
            found.append(pytest.param(whole, id=f"{page_id(page)}, slow ones too", marks=pytest.mark.slow))
    return found


def commands(text: str) -> list[list[str]]:
    """The lines of a block that call vit-deploy, as words."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("vit-deploy ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_are_written_as_the_command_line_reads_them(page: Path):
    for words in commands("".join(text for _, text in blocks(page))):
        if ">" in words:
            words = words[: words.index(">")]
        parent = click.Context(group, **group.context_settings)
        command = group.get_command(parent, words[0])
        assert command is not None, words
        # Parsing refuses unknown flags, wrong choices and missing arguments.
        command.make_context(words[0], words[1:], parent=parent)


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VIT_DEPLOY_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has at hand, once for all pages."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(DIGITS, folder / "my-vit")
    (folder / "photos").mkdir()
    samples = sorted(DIGITS.rglob("*.png"))
    for sample in samples[:2]:
        shutil.copy(sample, folder / "photos")
    shutil.copy(samples[0], folder / "photo.png")
    done = shell("vit-deploy export -m my-vit --format onnx -o bundle", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("text", runnable())
def test_commands_marked_run_do(text: str, desk: Path, tmp_path: Path):
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    done = shell(text, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    if "vit-deploy" in text:
        assert "next: " in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: Path):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_flag_is_documented(name: str):
    page = REPOSITORY / "docs" / "commands" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert f"commands/{name}.md" in (REPOSITORY / "docs" / "command-line.md").read_text(encoding="utf-8")
    command = group.get_command(click.Context(group), name)
    assert command is not None
    everywhere = text + "".join(
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "formats").iterdir()
    )
    for option in command.params:
        if isinstance(option, click.Option):
            words = [*option.opts, *option.secondary_opts]
            assert any(f"{word}" in everywhere for word in words if word.startswith("--")), words


def test_every_format_has_a_page():
    from vit_deploy import registry

    pages = {path.stem for path in (REPOSITORY / "docs" / "formats").iterdir()}
    assert pages == set(registry.formats())


@pytest.mark.parametrize("page", ["README.md", "docs/command-line.md"])
def test_the_exit_codes_are_those_of_the_errors(page: str):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [entry for entry in vars(errors).values() if isinstance(entry, type)]
    used = {entry.exit_code for entry in classes if issubclass(entry, errors.VitDeployError)}
    assert used | {0} == listed - {130}


def test_the_limits_of_parity_are_those_of_the_code():
    from vit_deploy.parity import LIMITS
    from vit_deploy.parity.limits import NAMES
    from vit_deploy.spec import PRECISIONS

    text = (REPOSITORY / "docs" / "parity.md").read_text(encoding="utf-8")
    powers = {"2⁻²³": 2.0**-23, "2⁻¹²": 2.0**-12, "2⁻⁹": 2.0**-9, "2⁻⁶": 2.0**-6, "2⁻⁵": 2.0**-5}
    columns = {5: ("p95", "worst", "epsilon", "flips"), 6: ("top1", "top5", "kl", "cosine", "epsilon")}
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\| (?:fp|bf|int)\d.*$", text, re.MULTILINE)]
    assert [row[0] for row in rows] == list(PRECISIONS)
    for precision, *values in rows:
        named = dict(zip(columns[len(values) + 1], values, strict=True))
        for name, value in named.items():
            assert getattr(LIMITS[precision], name) == (powers.get(value) or float(value)), (precision, name)
        silent = {*LIMITS[precision].in_force()} - {*named} - {"typical", "confidence"}
        assert not silent, (precision, silent)
    assert all(f"`{name}`" in text for name in NAMES)


def test_what_samples_can_show_is_as_the_page_of_parity_says():
    from vit_deploy.parity.binomial import clopper_pearson, needed

    text = (REPOSITORY / "docs" / "parity.md").read_text(encoding="utf-8")
    rows = {
        name: [float(cell) for cell in cells.split("|")]
        for name, cells in re.findall(r"^\| (share|where all agree|where one does not) \|(.*)\|$", text, re.M)
    }
    for misses, name in enumerate(("where all agree", "where one does not")):
        assert rows[name] == [needed(misses, share, 0.95) for share in rows["share"]]
    assert f"can show {clopper_pearson(16, 16, 0.95)[0]:.1%}".replace("%", " %") in text


def test_every_decision_is_listed_and_short():
    folder = REPOSITORY / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for path in sorted(folder.glob("0*.md")):
        text = path.read_text(encoding="utf-8")
        assert f"]({path.name})" in index
        assert int(path.name[:4]) == int(text.removeprefix("# ").partition(".")[0])
        assert len(text.split()) < 450, path.name


def test_the_schema_of_the_manifest_is_golden(golden):
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    golden("../../docs/manifest.schema.json", json.dumps(schema, indent=2, sort_keys=True) + "\n")


def test_the_makefile_explains_every_target():
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE))
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    declared = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert listed == declared
    assert {
        "help",
        "setup",
        "demo",
        "test",
        "lint",
        "type",
        "bench",
        "golden",
        "docs",
        "build",
        "check",
        "clean",
    } <= listed


def test_the_readmes_test_command_is_what_ci_runs():
    assert "\nmake test\n" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "make --silent test" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
