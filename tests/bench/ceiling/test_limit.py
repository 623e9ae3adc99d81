"""What an inference amounts to, which ceilings a run measures, and each row's share of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vit_deploy.bench.cases import Case
from vit_deploy.bench.ceiling import ceiling_cases, describe_ceiling, limit_of, work_of
from vit_deploy.bench.measured import Measured
from vit_deploy.model.counts import count_macs, count_parameters


@pytest.fixture
def case(fake_bundle) -> Case:
    bundle = fake_bundle(quick={})
    return Case(
        bundle=str(bundle.path),
        artefact="quick",
        format="fake",
        precision="fp32",
        backend="fake",
        device="cpu",
        batch_size=4,
        threads=2,
        verified=True,
        files={"orders.json": "0"},
        image_size=bundle.config.image_size,
    )


def measured(case: Case, *samples: int, **changes) -> Measured:
    facts = {"backend": "numpy", "version": "2.0", "providers": {"numpy": 3.0, "torch": "not installed"}}
    return Measured(case, rounds=[list(samples)], facts=facts, **changes)


def test_the_work_of_a_case_is_that_of_its_model_at_its_batch(case, small_config):
    work = work_of(case)
    assert work is not None
    assert work.flops == 2 * count_macs(small_config, batch_size=4) == sum(gemm.flops for gemm in work.gemms)
    assert work.bytes_moved > 4 * count_parameters(small_config)
    assert work.intensity == work.flops / work.bytes_moved


def test_half_as_wide_numbers_move_half_as_many_bytes(case):
    wide, half = work_of(case), work_of(replace(case, precision="bf16"))
    assert wide is not None
    assert half is not None
    assert (wide.flops, wide.bytes_moved) == (half.flops, 2 * half.bytes_moved)


def test_another_image_size_is_counted_unless_the_artefact_resizes_it_away(case, small_config):
    larger = (small_config.image_size[0] * 2, small_config.image_size[1])
    own, at_larger = work_of(case), work_of(replace(case, image_size=larger))
    assert own is not None
    assert at_larger is not None
    assert at_larger.flops == 2 * count_macs(small_config, batch_size=4, image_size=larger) > own.flops
    assert work_of(replace(case, image_size=larger, contract="image")) == own


def test_what_an_artefact_does_not_give_is_not_counted(tmp_path, small_model, fake_bundle, case):
    from vit_deploy.bundle import edit_bundle
    from vit_deploy.facts import Verdict
    from vit_deploy.protocols import ExportedFiles, NoOptions

    path = tmp_path / "tokens"
    with edit_bundle(path, small_model) as editor:
        (editor.stage("bare") / "orders.json").write_text("{}")
        exported = ExportedFiles(("orders.json",), small_model.config.io_spec(("tokens",)))
        editor.accept(
            editor.candidate("bare", "fake", "fp32", exported), exported, NoOptions(), Verdict(passed=True)
        )
    bare = work_of(replace(case, bundle=str(path), artefact="bare"))
    reference = work_of(replace(case, bundle=str(path), artefact="pytorch-fp32", format="pytorch"))
    whole = work_of(case)
    assert bare is not None
    assert whole is not None
    assert "head" not in {gemm.name for gemm in bare.gemms}
    assert bare.flops == 2 * count_macs(small_model.config, batch_size=4, outputs=("tokens",)) < whole.flops
    assert reference == bare  # eager computes what the bundle's artefacts do


def test_a_module_of_the_users_own_and_a_bundle_that_is_gone_have_no_limit(case, monkeypatch):
    from vit_deploy.bundle.reader import Bundle
    from vit_deploy.model.module_config import ModuleConfig, Port

    gone = replace(case, bundle="/nowhere/at/all")
    assert work_of(gone) is None
    assert limit_of(gone, 1e6, 100.0, []) is None
    assert ceiling_cases([gone]) == []

    config = ModuleConfig("package:make", (Port("a", (3, 8, 8)),), (Port("b", (5,)),), depth=1)
    monkeypatch.setattr(Bundle, "config", config)
    assert work_of(replace(case, batch_size=7)) is None


def test_one_ceiling_for_each_set_of_products_precision_device_and_threads(case):
    cases = [
        case,
        replace(case, backend="other", streams=2),
        replace(case, role="twin"),
        replace(case, artefact="quick-bf16", precision="bf16"),
        replace(case, threads=1),
        replace(case, batch_size=1),
        replace(case, device="cuda:0", cuda_graph=True),
    ]
    found = ceiling_cases(cases)
    assert {(entry.role, entry.backend, entry.streams, entry.cuda_graph) for entry in found} == {
        ("ceiling", "gemm", 1, False)
    }
    told = [(entry.precision, entry.device, entry.threads, entry.batch_size) for entry in found]
    assert told == [
        ("fp32", "cpu", 2, 4),
        ("bf16", "cpu", 2, 4),
        ("fp32", "cpu", 1, 4),
        ("fp32", "cpu", 2, 1),
        ("fp32", "cuda:0", 2, 4),
    ]
    assert len({entry.key for entry in [*cases[:1], *found]}) == 1 + len(found)
    assert found[0].peers == case.peers  # so it is measured among them


def test_the_share_of_the_ceiling_by_hand(case):
    work, (ceiling,) = work_of(case), ceiling_cases([case])
    assert work is not None
    limit = limit_of(case, 2e6, 1.0, [measured(ceiling, 900_000, 1_000_000, 5_000_000)])
    assert limit == {
        "flops": work.flops,
        "bytes_moved": work.bytes_moved,
        "intensity": work.intensity,
        "gflops_per_s": pytest.approx(work.flops / 2e6),
        "ceiling_gflops_per_s": pytest.approx(work.flops / 1e6),
        "share": pytest.approx(0.5),
    }


def test_a_share_above_one_is_told_as_it_is(case):
    (ceiling,) = ceiling_cases([case])
    limit = limit_of(case, 1e6, 1.0, [measured(ceiling, 1_250_000)])
    assert limit is not None
    assert limit["share"] == pytest.approx(1.25)


def test_streams_are_judged_by_what_they_reach_together(case):
    (ceiling,) = ceiling_cases([case])
    streams = replace(case, streams=2)
    # 4 images in 2 ms on each of two streams: 4,000 images, or 1,000 batches, in a second.
    limit = limit_of(streams, 2e6, 4000.0, [measured(ceiling, 1_000_000)])
    assert limit is not None
    assert limit["share"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "changes", [{"threads": 1}, {"precision": "bf16"}, {"batch_size": 1}, {"device": "cuda:0"}]
)
def test_the_ceiling_of_something_else_is_none(case, changes):
    (ceiling,) = ceiling_cases([replace(case, **changes)])
    limit = limit_of(case, 2e6, 1.0, [measured(ceiling, 1_000_000)])
    assert limit is not None
    assert set(limit) == {"flops", "bytes_moved", "intensity", "gflops_per_s"}


def test_a_ceiling_that_failed_says_why_and_bounds_nothing(case):
    (ceiling,) = ceiling_cases([case])
    failed = Measured(ceiling, error="nothing here multiplies matrices in fp8")
    limit = limit_of(case, 2e6, 1.0, [failed])
    assert limit is not None
    assert "share" not in limit
    told = describe_ceiling(failed)
    assert (told["ok"], told["gflops_per_s"], told["p50_ms"]) == (False, None, None)
    assert told["error"] == "nothing here multiplies matrices in fp8"


def test_a_ceiling_names_the_library_that_won(case):
    (ceiling,) = ceiling_cases([case])
    work = work_of(case)
    assert work is not None
    told = describe_ceiling(measured(ceiling, 1_000_000, peak_rss_bytes=7))
    assert told["ok"]
    assert (told["provider"], told["version"], told["precision"]) == ("numpy", "2.0", "fp32")
    assert told["providers"] == {"numpy": 3.0, "torch": "not installed"}
    assert told["gflops_per_s"] == pytest.approx(work.flops / 1e6)
    assert (told["p50_ms"], told["peak_rss_bytes"], told["samples_ns"]) == (1.0, 7, [1_000_000])
