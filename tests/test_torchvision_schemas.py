"""A torchvision whose compiled part does not fit does not stand in the way of a proof."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
from vit_deploy.torchvision_schemas import let_torchvision_import
first = let_torchvision_import()
import torchvision, timm
assert not let_torchvision_import(), "once is enough"
import torch
try:
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    runs = True
except (NotImplementedError, RuntimeError):
    runs = False
print(first, runs)
"""


def test_libraries_can_be_imported_and_no_operator_is_faked():
    """In a process of its own, without what the tests' set-up declares."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    declared, runs = done.stdout.split()
    assert runs == str(declared == "False")  # what had to be declared has no body; what fits, works


def test_a_process_without_torchvision_is_left_alone():
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'torchvision' else found(name, *a)\n"
        "from vit_deploy.torchvision_schemas import let_torchvision_import\n"
        "assert not let_torchvision_import()\n"
        "assert 'torchvision' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_factory_of_torchvision_is_found():
    """What refusals suggest, `-m py:torchvision.models:NAME`, in a process without the tests' set-up."""
    code = (
        "from vit_deploy.weights.module.factory import make\n"
        "print(type(make('torchvision.models:squeezenet1_1', 0).module).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "SqueezeNet\n", done.stderr
