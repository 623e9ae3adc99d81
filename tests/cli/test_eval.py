"""``vit-deploy eval`` as a user meets it, on the digits model; backends that fail are played by fakes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vit_deploy import registry
from vit_deploy.assets import digits_directory, sample_images
from vit_deploy.bundle import Bundle
from vit_deploy.deploy import evaluate as module
from vit_deploy.deploy.entrants import Wanted
from vit_deploy.deploy.evaluate import evaluate
from vit_deploy.deploy.export import export_model
from vit_deploy.errors import BackendDied, HostileInput, RunFailed
from vit_deploy.weights import load_model

if TYPE_CHECKING:
    from collections.abc import Callable

COPIES = 6
"""Of each sample picture: with fewer a budget is always open."""

HALF_WIDTH = 100 * 1.959964**2 / (60 + 1.959964**2)
"""In points, of the interval of a drop of nothing on sixty pictures."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "bundle"
    export_model(load_model(str(digits_directory())), folder, ("torchscript",))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixty pictures, six of each digit, in a folder for each."""
    for sample in sample_images():
        folder = tmp_path / "data" / sample.name.partition("_")[0]
        folder.mkdir(parents=True)
        for copy in range(COPIES):
            (folder / f"é {copy}.png").write_bytes(sample.read_bytes())
    return tmp_path / "data"


class Played:
    """A session that gives what ``play`` makes of the real one's logits."""

    def __init__(self, session: Any, play: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
        self.session, self.play, self.facts = session, play, session.facts
        self.closed = False

    def run(self, inputs: Any) -> Any:
        return {name: self.play(array) for name, array in self.session.run(inputs).items()}

    def close(self) -> None:
        self.closed = True
        self.session.close()


def opener(play: Callable[[Any], Any], *, also_eager: bool = False) -> Any:
    """Opens in this process; what is not eager is played."""

    def open_session(runtime: Any, artefact: Any, device: Any, options: Any) -> Any:
        session = runtime.open(artefact, device, options)
        return Played(session, play if also_eager or runtime.name != "eager" else lambda logits: logits)

    return open_session


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(play: Callable[[Any], Any], **told: Any) -> None:
        fake = opener(play, **told)
        monkeypatch.setattr(
            module,
            "open_isolated",
            lambda runtime, artefact, device, options, timeout_s: fake(runtime, artefact, device, options),
        )

    return use


def only_zero_and_one(logits: Any) -> Any:
    """Sevens, eights and nines are taken for ones: 18 of 60 pictures are lost."""
    changed = logits.copy()
    changed[logits.argmax(axis=1) >= 7] = np.eye(10, dtype=np.float32)[1]
    return changed


def test_each_artefact_has_a_row_beside_eager_in_processes_of_their_own(invoke, bundle: Path, data: Path):
    result = invoke("eval", bundle, "--data", data, "--json", "--per-class", "--batch", 7, "--max-drop", 5)
    assert result.code == 0, result.err
    document = result.json
    assert document["schema"] == "vit-deploy/eval/1"
    assert [(row["artefact"], row["backend"]) for row in document["rows"]] == [
        ("pytorch-fp32", "eager"),
        ("torchscript-fp32", "torchscript"),
    ]
    assert all(row["ok"] and row["top1"]["right"] == row["top1"]["of"] == 60 for row in document["rows"])
    assert document["rows"][1]["drop"] == {
        **{"points": 0.0, "lost": 0, "gained": 0, "p_value": 1.0},
        **{end: pytest.approx(value, abs=1e-6) for end, value in (("low", -HALF_WIDTH), ("high", HALF_WIDTH))},
    }
    assert document["data"]["classes_read_as"] == "labels"
    assert [entry["pictures"] for entry in document["classes"]] == [COPIES] * 10
    assert document["gate"]["rows"] == [
        {"artefact": "torchscript-fp32", "backend": "torchscript", "ruling": "held"}
    ]
    assert "next: vit-deploy bench" in result.err


def test_what_changed_is_told_and_a_drop_past_the_budget_is_exit_code_5(
    invoke, bundle: Path, data: Path, played: Any
):
    played(only_zero_and_one)
    result = invoke("eval", bundle, "--data", data, "--max-drop", 10, "--changes", 2, "--per-class")
    assert result.code == 5
    assert "+30.00" in result.err
    assert "18 of 60 answered otherwise than by eager (18 lost, 0 gained, 0 wrong both times)" in result.out
    assert "7 → 1 (6), 8 → 1 (6), 9 → 1 (6)" in result.out
    assert result.out.count(".png") == 2
    assert "7/é 0.png" in result.out
    document = json.loads(invoke("eval", bundle, "--data", data, "--json", "--changes", 1).out)
    row = document["rows"][1]
    assert (row["drop"]["lost"], row["agreement"]) == (18, pytest.approx(0.7))
    assert row["changes"] == [{"file": "7/é 0.png", "label": "7", "reference": "7", "answer": "1"}]


def test_what_is_not_shown_fails_only_where_that_is_asked_for(invoke, bundle: Path, data: Path, played: Any):
    played(lambda logits: logits)
    result = invoke("eval", bundle, "--data", data, "--max-drop", 1)
    assert result.code == 0
    assert "which about 268 such pictures would show" in result.err
    assert invoke("eval", bundle, "--data", data, "--max-drop", 1, "--strict").code == 5


def test_an_artefact_that_crashes_is_a_row_and_exit_code_1(invoke, bundle: Path, data: Path, played: Any):
    def crash(_: Any) -> Any:
        raise BackendDied("the worker was killed by SIGSEGV", next_command="vit-deploy doctor")

    played(crash)
    result = invoke("eval", bundle, "--data", data, "--json")
    assert result.code == 1
    assert [row["ok"] for row in result.json["rows"]] == [True, False]
    assert "SIGSEGV" in result.json["rows"][1]["error"]
    assert "could not be evaluated: torchscript-fp32 in torchscript" in result.err


def test_eager_that_fails_ends_it(bundle: Path, data: Path):
    def crash(_: Any) -> Any:
        raise RunFailed("no")

    with pytest.raises(RunFailed, match="no"):
        evaluate(Bundle.open(bundle), data, open_session=opener(crash, also_eager=True))


def test_what_is_not_finite_counts_as_wrong(invoke, bundle: Path, data: Path, played: Any):
    def overflow(logits: Any) -> Any:
        changed = logits.copy()
        changed[logits.argmax(axis=1) == 3, 3] = np.inf
        return changed

    played(overflow)
    result = invoke("eval", bundle, "--data", data)
    assert "gave NaN or Inf for 6 pictures, which count as wrong" in result.out
    assert "3 → nothing (6)" in result.out


def test_pictures_that_cannot_be_read_are_left_out_of_every_row(invoke, bundle: Path, data: Path, played: Any):
    played(lambda logits: logits)
    (data / "4" / "é 0.png").write_bytes(b"no picture")
    (data / "5" / "é 5.png").write_bytes(b"")
    (data / "nothing").mkdir()
    result = invoke("eval", bundle, "--data", data, "--json")
    assert result.code == 0
    told = result.json["data"]
    assert [entry["file"] for entry in told["unreadable"]] == ["4/é 0.png", "5/é 5.png"]
    assert (told["used"], told["evaluated"], told["empty_folders"]) == (60, 58, ["nothing"])
    assert [row["top1"]["of"] for row in result.json["rows"]] == [58, 58]
    assert "2 of 60 pictures could not be read" in invoke("eval", bundle, "--data", data).err
    assert "hold no pictures: 'nothing'" in invoke("eval", bundle, "--data", data, "--strict").err
    (data / "nothing").rmdir()
    strict = invoke("eval", bundle, "--data", data, "--strict")
    assert (strict.code, "é 0.png" in strict.err) == (6, True)


def test_data_of_other_classes_is_refused(invoke, bundle: Path, data: Path):
    (data / "3").rename(data / "three")
    result = invoke("eval", bundle, "--data", data)
    assert result.code == 6
    assert "1 of the data's 10 classes are none of the model's: 'three'" in result.err
    assert "the model has 10 classes: '0', '1'" in result.err


def test_nothing_readable_is_refused(bundle: Path, data: Path):
    for picture in data.rglob("*.png"):
        picture.write_bytes(b"x")
    with pytest.raises(HostileInput, match="none of the pictures can be read"):
        evaluate(Bundle.open(bundle), data, open_session=opener(lambda logits: logits))


def test_a_limit_takes_an_even_share(bundle: Path, data: Path):
    found = evaluate(
        Bundle.open(bundle), data, Wanted(limit=20, batch_size=3), open_session=opener(lambda logits: logits)
    )
    assert [picture.label for picture in found.used] == [str(digit) for digit in range(10) for _ in range(2)]
    assert found.reference.figures is not None
    assert set(found.reference.figures.by_class.values()) == {(2, 2)}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--backend", "tensorflow"), 2, "unknown backend"),
        (("--artefact", "onnx-fp3"), 2, "unknown artefact"),
        (("--backend", "onnxruntime"), 2, "opens onnx"),
        (("--device", "tpu"), 2, "unknown device"),
        (("--max-drop", "-1"), 2, "max-drop"),
        (("--backend", "torchscript", "--device", "cuda"), 4, "cannot be used"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    invoke, bundle: Path, data: Path, words: tuple[str, ...], code: int, told: str
):
    if "cuda" in words and registry.runtime("eager").devices()[0].kind == "cuda":
        pytest.skip("there is a CUDA device here")
    result = invoke("eval", bundle, "--data", data, *words)
    assert (result.code, told in result.err) == (code, True), result.err


def test_an_artefact_that_nothing_here_runs_is_a_row_and_exit_code_4(
    invoke, bundle: Path, data: Path, played: Any, monkeypatch: pytest.MonkeyPatch
):
    played(lambda logits: logits)
    known = registry.runtimes_for
    monkeypatch.setattr(
        registry, "runtimes_for", lambda format, *told: [] if format == "torchscript" else known(format, *told)
    )
    result = invoke("eval", bundle, "--data", data, "--json")
    assert result.code == 4
    assert result.json["rows"][1]["backend"] is None
    assert result.json["rows"][0]["top1"]["right"] == 60


def test_the_padding_of_a_small_batch_is_dropped(bundle: Path, data: Path):
    opened = Bundle.open(bundle)
    plain = opened.artefact

    def fixed(name: str) -> Any:
        artefact = plain(name)
        spec = dataclasses.replace(
            artefact.spec, batch=dataclasses.replace(artefact.spec.batch, minimum=4, optimum=4)
        )
        return dataclasses.replace(artefact, spec=spec)

    opened.artefact = fixed  # type: ignore[method-assign]
    seen: list[int] = []

    def note(logits: Any) -> Any:
        seen.append(len(logits))
        return logits

    found = evaluate(opened, data, Wanted(limit=10, batch_size=8), open_session=opener(note))
    assert seen == [8, 4]
    assert [row.figures.top1.of for row in found.rows if row.figures] == [10, 10]


def test_a_backend_without_kernels_for_a_precision_is_passed_over(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry, "computes", lambda found, *_: None if found.name == "torchscript" else "fp32")
    found = evaluate(Bundle.open(bundle), data, Wanted(limit=10), open_session=opener(lambda logits: logits))
    assert [row.backend for row in found.rows] == ["eager", ""]
    assert "no kernels for fp32" in str(found.rows[1].error)
    assert not found.rows[1].failed


def test_what_is_computed_in_another_precision_is_told(
    invoke, bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    fake = opener(lambda logits: logits)

    def as_fp16(runtime: Any, artefact: Any, device: Any, options: Any, timeout_s: float) -> Any:
        assert timeout_s == 9
        session = fake(runtime, artefact, device, options)
        if runtime.name != "eager":
            session.facts = dataclasses.replace(session.facts, precision="fp16")
        return session

    monkeypatch.setattr(module, "open_isolated", as_fp16)
    told = invoke("eval", bundle, "--data", data, "--limit", 10, "--timeout", 9).out
    assert "torchscript computes it in fp16 here, which says little of fp32" in told
