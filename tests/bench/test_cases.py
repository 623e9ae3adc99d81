"""Which artefact is measured at which batch and image size, and what is said of those that are not."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vit_deploy import registry
from vit_deploy.bench import subjects
from vit_deploy.bench.cases import Case, cases_for, check_facts, free_sizes, open_artefact
from vit_deploy.bench.grid import Grid
from vit_deploy.bench.worker import make_inputs
from vit_deploy.bundle import Bundle
from vit_deploy.deploy.export import export_model
from vit_deploy.errors import RunFailed, UsageFailed
from vit_deploy.facts import Device, RuntimeFacts
from vit_deploy.protocols import SessionOptions
from vit_deploy.spec import BatchRange, SizeRange

shelve = runpy.run_path(str(Path(__file__).parent / "shelf.py"))["shelve"]

ONE = Grid(threads=(1,))
SIZES = SizeRange(
    minimum=(16, 24), optimum=(32, 48), maximum=(64, 96), patch_size=8, step=8, num_prefix_tokens=1
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a bundle é"


def fakes(bundle, grid):
    return cases_for(bundle, registry.runtime("fake"), Device(), grid)


def eager(bundle, grid):
    return cases_for(bundle, registry.runtime("eager"), Device(), grid)


def test_a_case_says_what_its_artefact_is(path, small_model):
    (case,), refused = fakes(shelve(path, small_model), ONE)
    assert not refused
    assert (case.artefact, case.contract, case.image_size, case.worst_ratio) == (
        "fake-fp32",
        "pixel_values",
        (32, 48),
        1.25,
    )
    assert (case.threads, case.streams, case.batch_size, case.remarks) == (1, 1, 1, ())
    assert case.key == "fake-fp32/fake/cpu/b1/32x48/t1/s1"
    assert Case.from_dict(case.to_dict()) == case


def test_remarks_and_sizes_are_tuples_when_they_come_back_from_json(path, small_model):
    import json

    (case,), _ = fakes(shelve(path, small_model), Grid(batch_sizes=(9,), threads=(1,)))
    assert case.remarks
    assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case


def test_a_batch_beyond_the_verified_one_is_measured_and_noted(path, small_model):
    cases, refused = fakes(shelve(path, small_model), Grid(batch_sizes=(8, 9), threads=(1,)))
    assert [case.remarks for case in cases] == [(), ("beyond the verified batch (1 to 8)",)]
    assert not refused


def test_an_unverified_artefact_is_beyond_nothing(path, small_model):
    (case,), _ = fakes(shelve(path, small_model, passed=None), Grid(batch_sizes=(9,), threads=(1,)))
    assert not case.verified
    assert case.remarks == ()


def test_a_fixed_batch_takes_no_other(path, small_model):
    bundle = shelve(path, small_model, batch=BatchRange(4, 4, 4))
    (case,), (refused,) = fakes(bundle, Grid(batch_sizes=(4, 2), threads=(1,)))
    assert case.batch_size == 4
    assert refused.found == "fake-fp32 is made for a batch of 4, not of 2"
    assert refused.expected == "--batch-size 4"
    assert "vit-deploy export -m MODEL --maxShapes 4x3x32x48 --format fake" in refused.next_command
    assert str(bundle.path) in refused.next_command


def test_a_bound_format_takes_nothing_outside_its_profile(path, small_model, monkeypatch):
    monkeypatch.setattr(subjects, "BOUND_FORMATS", frozenset({"fake"}))
    bundle = shelve(path, small_model, batch=BatchRange(2, 2, 4))
    cases, refused = fakes(bundle, Grid(batch_sizes=(1, 2, 4, 5), threads=(1,)))
    assert [case.batch_size for case in cases] == [2, 4]
    assert [error.found for error in refused] == [
        "fake-fp32 is made for a batch of 2 to 4, not of 1",
        "fake-fp32 is made for a batch of 2 to 4, not of 5",
    ]
    assert "--maxShapes 5x3x32x48" in refused[1].next_command


def test_tensorrt_is_built_from_onnx_and_both_are_exported_anew():
    flags = subjects.export_flags(["tensorrt"], ["fp16"], ["uint8"])
    assert flags == ["--format onnx,tensorrt", "--dtype fp16", "--input uint8"]


def test_an_image_size_is_measured_where_it_is_free(path, small_model):
    bundle = shelve(path, small_model, sizes=SIZES)
    cases, refused = fakes(bundle, Grid(image_sizes=((32, 48), (16, 96), (72, 48)), threads=(1,)))
    assert [case.image_size for case in cases] == [(32, 48), (16, 96)]
    (error,) = refused
    assert error.found == (
        "fake-fp32 is made for images of 16x24 to 64x96, in steps of 8: it is not measured at 72x48"
    )
    assert "--dynamic-image-size --minShapes 1x3x16x24 --maxShapes 8x3x72x96" in error.next_command


def test_a_fixed_image_size_takes_no_other(path, small_model):
    cases, (error,) = fakes(shelve(path, small_model), Grid(image_sizes=((64, 48),), threads=(1,)))
    assert not cases
    assert error.found == "fake-fp32 is made for images of 32x48: it is not measured at 64x48"
    assert "--dynamic-image-size --minShapes 1x3x32x48 --maxShapes 8x3x64x48" in error.next_command


def test_eager_is_measured_at_any_size_that_patches_divide(path, small_model):
    bundle = shelve(path, small_model)
    cases, (error,) = eager(bundle, Grid(image_sizes=((64, 48), (33, 48)), threads=(1,)))
    assert [case.image_size for case in cases] == [(64, 48)]
    assert "does not divide into patches of 8" in error.found


def test_eager_at_another_size_computes_what_an_export_there_computes(path, small_model):
    import torch

    from vit_deploy.weights.resize import resized

    (case,), _ = eager(shelve(path, small_model), Grid(image_sizes=((64, 48),), threads=(1,)))
    artefact = open_artefact(case)
    inputs = make_inputs(artefact, free_sizes(artefact, case))
    assert inputs["pixel_values"].shape == (1, 3, 64, 48)
    with registry.runtime("eager").open(artefact, Device(), SessionOptions(threads=1)) as session:
        found = session.run(inputs)["logits"]
    with torch.inference_mode():
        expected = resized(small_model, (64, 48)).eager()(torch.from_numpy(inputs["pixel_values"]))
    assert np.array_equal(found, expected.numpy())


def test_contracts_are_cases_of_their_own(path, small_model):
    shelve(path, small_model)
    shelve(path, small_model, contract="uint8")
    bundle = shelve(path, small_model, contract="image", sizes=replace(SIZES, patch_size=1, step=1))
    cases, _ = fakes(bundle, ONE)
    (reference,), _ = eager(bundle, ONE)
    assert {case.contract for case in cases} == {"pixel_values", "uint8", "image"}
    assert len({case.key for case in cases}) == 3
    # All of them are compared with eager at the same batch, and at the size that the network sees.
    assert {case.peers for case in cases} == {reference.peers}
    by_contract = {case.contract: case for case in cases}
    assert by_contract["image"].remarks == ("pictures of 32x48",)
    shapes = {}
    for contract, case in by_contract.items():
        artefact = open_artefact(case)
        (shapes[contract],) = (a.shape for a in make_inputs(artefact, free_sizes(artefact, case)).values())
    assert shapes == {"pixel_values": (1, 3, 32, 48), "uint8": (1, 32, 48, 3), "image": (1, 32, 48, 3)}


def test_pictures_are_made_the_models_size_and_no_other(path, small_model):
    bundle = shelve(path, small_model, contract="image", sizes=replace(SIZES, patch_size=1, step=1))
    cases, (error,) = fakes(bundle, Grid(image_sizes=((64, 48),), threads=(1,)))
    assert not cases
    assert "makes every picture one of 32x48 itself" in error.found
    assert error.next_command == "vit-deploy export -m MODEL --image-size 64x48 --format fake --input image"


def test_a_dynamic_network_is_fed_at_the_size_of_its_case(path, small_model):
    bundle = shelve(path, small_model, sizes=SIZES)
    (case,), _ = fakes(bundle, Grid(batch_sizes=(2,), image_sizes=((16, 96),), threads=(1,)))
    artefact = open_artefact(case)
    assert free_sizes(artefact, case) == {"batch": 2, "height": 16, "width": 96, "tokens": 25}


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        (Grid(threads=(1,)), ["fake-fp32", "fake-fp32-uint8", "fake-int8"]),
        (Grid(threads=(1,), contracts=("uint8",)), ["fake-fp32-uint8"]),
        (Grid(threads=(1,), precisions=("int8",)), ["fake-int8"]),
        (Grid(threads=(1,), formats=("onnx",)), []),
    ],
)
def test_filters_let_in_what_fits(path, small_model, grid, names):
    shelve(path, small_model, contract="uint8")
    shelve(path, small_model, precision="int8")
    bundle = shelve(path, small_model)
    cases, refused = fakes(bundle, grid)
    assert sorted(case.artefact for case in cases) == names
    assert not refused


@pytest.mark.parametrize(
    ("precisions", "expected"),
    [((), ["fp32"]), (("bf16",), ["bf16"]), (("int8",), ["fp32"]), (("bf16", "fp32"), ["fp32", "bf16"])],
)
def test_the_reference_is_measured_in_the_precisions_that_it_has(path, small_model, precisions, expected):
    cases, _ = eager(shelve(path, small_model), Grid(threads=(1,), precisions=precisions))
    assert [case.precision for case in cases] == expected


def test_the_reference_in_bf16_is_opened_in_bf16(path, small_model):
    (case,), _ = eager(shelve(path, small_model), Grid(threads=(1,), precisions=("bf16",)))
    with registry.runtime("eager").open(open_artefact(case), Device(), SessionOptions(threads=1)) as session:
        check_facts(session.facts, case)
        assert session.facts.precision == "bf16"


def test_other_streams_than_asked_for_are_refused(path, small_model):
    (case,), _ = fakes(shelve(path, small_model), ONE)
    facts = RuntimeFacts("fake", "1", "cpu", "fp32", threads=1, streams=1)
    check_facts(facts, case)
    with pytest.raises(RunFailed, match="reports streams 1"):
        check_facts(facts, replace(case, streams=2))


def test_a_module_of_one_batch_is_told_to_be_measured_there(path, small_model):
    """No export helps where the model's own code has the number in it."""
    bundle = shelve(path, small_model, batch=BatchRange(4, 4, 4))

    class FixedConfig:
        image_size = (0, 0)

        def io_spec(self):
            return replace(small_model.config.io_spec(), batch=BatchRange(4, 4, 4))

    class FixedBundle:
        config = FixedConfig()
        path = bundle.path

    subject = subjects.find_subjects(bundle, frozenset({"fake"}), ONE)[0]
    with pytest.raises(UsageFailed) as raised:
        subject.check(FixedBundle(), 2, (0, 0))
    assert raised.value.next_command == "--batch-size 4"


def test_what_a_backend_computes_in_another_precision_is_left_out_unless_asked_for(small_model, tmp_path):
    for precision in ("fp16", "bf16"):
        export_model(small_model, tmp_path / "b", ["onnx"], precision=precision, verify=False)
    bundle, runtime = Bundle.open(tmp_path / "b"), registry.runtime("onnxruntime")
    cases, refused = cases_for(bundle, runtime, Device(), Grid())
    assert cases == []
    told = {str(error).split(":")[1].split()[0]: "--emulate" in str(error) for error in refused}
    assert told == {"onnx-bf16": False, "onnx-fp16": True}
    cases, refused = cases_for(bundle, runtime, Device(), Grid(emulate=True))
    assert [(case.artefact, case.remarks) for case in cases] == [("onnx-fp16", ("computed in fp32",))]
    assert "has no bf16" in str(refused[0])
