"""Names and a grid become cases, or reasons why not."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from vit_deploy import registry
from vit_deploy.bench import grid as grids
from vit_deploy.bench import subjects
from vit_deploy.bench.cases import Case
from vit_deploy.bench.grid import Grid, Lane, default_threads
from vit_deploy.bench.plan import ALL, Chosen, choose_backends, plan_cases, with_cuda_graphs
from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.facts import Device
from vit_deploy.spec import BatchRange

shelve = runpy.run_path(str(Path(__file__).parent / "shelf.py"))["shelve"]

EAGER = Case("b", "pytorch-fp32", "pytorch", "fp32", "eager", "cuda:0", 1, 2, True, {"w": "0"})
TENSORRT = replace(EAGER, artefact="tensorrt-fp32", format="tensorrt", backend="tensorrt")


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(grids, "usable_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def bundle(tmp_path, small_model):
    return shelve(tmp_path / "b", small_model)


def chosen(*names, named=True):
    return [Chosen(registry.runtime(name), Device(), named) for name in names]


def test_only_what_can_is_replayed():
    assert [case.cuda_graph for case in with_cuda_graphs([EAGER, TENSORRT])] == [False, True]


@pytest.mark.parametrize("cases", [[EAGER], [replace(TENSORRT, backend="onnxruntime", device="cpu")]])
def test_nothing_that_can_is_an_error(cases):
    with pytest.raises(UsageFailed, match="--cuda-graph"):
        with_cuda_graphs(cases)


def test_a_grid_asks_for_cuda_graphs(bundle):
    with pytest.raises(UsageFailed, match="--cuda-graph"):
        plan_cases(bundle, chosen("eager"), Grid(cuda_graph=True))


def test_a_case_keeps_it_on_its_way_to_the_worker():
    (case,) = with_cuda_graphs([TENSORRT])
    assert Case.from_dict(case.to_dict()) == case


def test_every_point_of_the_grid_is_a_case(bundle):
    grid = Grid(batch_sizes=(1, 4), image_sizes=((32, 48),), threads=(2, 4), streams=(1, 2))
    cases, skipped = plan_cases(bundle, chosen("eager", "fake"), grid)
    assert not skipped
    assert len(cases) == 2 * 2 * 4
    assert len({case.key for case in cases}) == len(cases)
    assert {(case.threads, case.streams) for case in cases} == {(2, 1), (2, 2), (4, 1), (4, 2)}
    # Those of a batch size are compared with each other, and stand together.
    assert [case.batch_size for case in cases] == [1] * 8 + [4] * 8


def test_a_point_named_twice_is_one(bundle):
    grid = Grid(
        batch_sizes=(1, 1), image_sizes=((32, 48), (32, 48)), threads=(4, "all"), streams=(4, "threads")
    )
    cases, _ = plan_cases(bundle, chosen("fake"), grid)
    assert [case.key for case in cases] == ["fake-fp32/fake/cpu/b1/32x48/t4/s4"]


@pytest.mark.parametrize(
    ("told", "lanes"),
    [
        ({}, [Lane(4, 1)]),
        ({"threads": ("all",), "streams": (1, "threads")}, [Lane(4, 1), Lane(4, 4)]),
        ({"threads": (1, 2), "streams": ("threads",)}, [Lane(1, 1), Lane(2, 2)]),
    ],
)
def test_threads_and_streams_go_together(told, lanes):
    assert Grid(**told).lanes(on_cpu=True) == (lanes, [])


def test_streams_that_do_not_fit_are_left_out_and_told(bundle):
    cases, skipped = plan_cases(bundle, chosen("fake"), Grid(threads=(1, 3), streams=(1, 2)))
    assert [(case.threads, case.streams) for case in cases] == [(1, 1), (3, 1)]
    assert {entry.backend for entry in skipped} == {ALL}
    first, second = skipped
    assert first.reason == "2 streams and 1 thread: each stream needs a thread of its own"
    assert "--streams 1" in first.mend
    assert second.reason == "2 streams and 3 threads: the streams cannot have the same number of threads each"


@pytest.mark.parametrize("streams", [8, 3])
def test_nothing_but_streams_that_do_not_fit_is_an_error(bundle, streams):
    with pytest.raises(UsageFailed, match=f"{streams} streams and 4 threads") as raised:
        plan_cases(bundle, chosen("fake"), Grid(threads=(4,), streams=(streams,)))
    assert "--streams" in raised.value.expected


def test_more_threads_than_cores_are_refused(bundle):
    with pytest.raises(UsageFailed, match="--threads is 5, and this process may use 4 cores") as raised:
        plan_cases(bundle, chosen("fake"), Grid(threads=(1, 5)))
    assert "--threads 4" in raised.value.next_command


def test_streams_of_a_gpu_share_no_threads():
    assert Grid(threads=(1, 2), streams=(1, 3)).lanes(on_cpu=False) == ([Lane(2, 1), Lane(2, 3)], [])


@pytest.mark.parametrize(("told", "count"), [("", 4), ("2", 2), ("99", 4), ("0", 4), ("2,1", 4), ("many", 4)])
def test_the_environment_says_how_many_threads_but_no_more_than_cores(monkeypatch, told, count):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert default_threads() == count


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"batch_sizes": (0,)}, "--batch-size is 0"),
        ({"batch_sizes": ()}, "--batch-size is empty"),
        ({"batch_sizes": (2**16 + 1,)}, "--batch-size is 65537"),
        ({"batch_sizes": (True,)}, "--batch-size is True"),
        ({"threads": ("threads",)}, "--threads is 'threads'"),
        ({"streams": ("all",)}, "--streams is 'all'"),
        ({"streams": (-1,)}, "--streams is -1"),
        ({"image_sizes": ((224, 0),)}, "--image-size is 0"),
        ({"contracts": ("uint",)}, "did you mean 'uint8'"),
        ({"precisions": ("fp23",)}, "did you mean 'fp32'"),
    ],
)
def test_a_grid_of_nonsense_is_refused(told, word):
    with pytest.raises(UsageFailed) as raised:
        Grid(**told)
    assert word in raised.value.found
    assert raised.value.expected


def test_an_unknown_format_lists_the_known(bundle):
    with pytest.raises(UsageFailed, match="did you mean 'onnx'"):
        plan_cases(bundle, chosen("fake"), Grid(formats=("onxx",)))


def test_a_named_backend_without_an_artefact_is_an_error(bundle):
    with pytest.raises(UsageFailed, match="holds no artefact that onnxruntime opens") as raised:
        plan_cases(bundle, chosen("eager", "onnxruntime"), Grid())
    assert "it holds fake-fp32" in raised.value.expected
    assert raised.value.next_command == f"vit-deploy export -m MODEL --format onnx -o {bundle.path}"


def test_a_backend_that_nobody_named_is_left_out(bundle):
    cases, skipped = plan_cases(bundle, chosen("eager", "onnxruntime", named=False), Grid())
    assert [case.backend for case in cases] == ["eager"]
    (entry,) = skipped
    assert entry.backend == "onnxruntime"
    assert "--format onnx" in entry.mend


def test_filters_that_leave_nothing_are_named(bundle):
    with pytest.raises(
        UsageFailed, match="no artefact that --dtype int8 --input uint8 lets in that fake"
    ) as raised:
        plan_cases(bundle, chosen("fake"), Grid(precisions=("int8",), contracts=("uint8",)))
    assert "--dtype int8 --input uint8" in raised.value.next_command


def test_what_does_not_fit_is_left_out_where_something_is_left(tmp_path, small_model):
    bundle = shelve(tmp_path / "fixed", small_model, batch=BatchRange(4, 4, 4))
    cases, skipped = plan_cases(bundle, chosen("eager", "fake", named=False), Grid(batch_sizes=(2,)))
    assert [case.backend for case in cases] == ["eager"]
    (entry,) = skipped
    assert (entry.backend, entry.reason) == ("fake", "fake-fp32 is made for a batch of 4, not of 2")
    assert "vit-deploy export" in entry.mend


@pytest.mark.parametrize(("names", "named"), [(["eager", "fake"], True), (["fake"], False)])
def test_what_does_not_fit_is_an_error_where_nothing_is_left(tmp_path, small_model, monkeypatch, names, named):
    monkeypatch.setattr(subjects, "BOUND_FORMATS", frozenset({"fake"}))
    bundle = shelve(tmp_path / "bound", small_model, batch=BatchRange(1, 2, 4))
    with pytest.raises(UsageFailed, match="made for a batch of 1 to 4, not of 5"):
        plan_cases(bundle, chosen(*names, named=named), Grid(batch_sizes=(5,)))


def test_a_suites_backend_may_be_missing():
    missing = [name for name in registry.backends() if not registry.runtime(name).available(Device()).ok]
    if not missing:
        pytest.skip("every backend runs here; the test is for one that does not")
    with pytest.raises(BackendMissing):
        choose_backends(["eager", missing[0]], Device())
    found, skipped = choose_backends(["eager", missing[0]], Device(), required=False)
    assert [(entry.runtime.name, entry.named) for entry in found] == [("eager", False)]
    assert [entry.backend for entry in skipped] == [missing[0]]
    assert all(entry.reason and entry.mend for entry in skipped)
