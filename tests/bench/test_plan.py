"""CUDA graphs are asked for where backend and device have them, and refused where nothing has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vit_deploy.bench.cases import Case
from vit_deploy.bench.plan import with_cuda_graphs
from vit_deploy.errors import UsageFailed

EAGER = Case("b", "pytorch-fp32", "pytorch", "fp32", "eager", "cuda:0", 1, 2, True, {"w": "0"})
TENSORRT = replace(EAGER, artefact="tensorrt-fp32", format="tensorrt", backend="tensorrt")


def test_only_what_can_is_replayed():
    assert [case.cuda_graph for case in with_cuda_graphs([EAGER, TENSORRT])] == [False, True]


@pytest.mark.parametrize("cases", [[EAGER], [replace(TENSORRT, backend="onnxruntime", device="cpu")]])
def test_nothing_that_can_is_an_error(cases):
    with pytest.raises(UsageFailed, match="--cuda-graph"):
        with_cuda_graphs(cases)


def test_a_case_keeps_it_on_its_way_to_the_worker():
    (case,) = with_cuda_graphs([TENSORRT])
    assert Case.from_dict(case.to_dict()) == case
