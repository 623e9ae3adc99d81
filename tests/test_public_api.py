from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from importlib import metadata

import vit_deploy
from vit_deploy import errors

PUBLIC = [
    "EINOPS",
    "RESHAPE",
    "Bundle",
    "Model",
    "PatchEmbedding",
    "ViT",
    "ViTConfig",
    "VitDeployError",
    "load_model",
]


def test_the_public_names_are_pinned():
    assert sorted(vit_deploy.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) < set(dir(vit_deploy))


def test_every_public_name_resolves_and_is_documented():
    for name in PUBLIC:
        found = getattr(vit_deploy, name)
        assert inspect.getdoc(found), name


def test_every_public_name_is_known_to_type_checkers():
    source = inspect.getsource(vit_deploy)
    for name in PUBLIC:
        assert f"import {name}" in source or f", {name}" in source, name


def test_the_version_is_the_distributions():
    assert vit_deploy.__version__ == metadata.version("vit-deploy")


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(vit_deploy, "no_such_name")


def test_importing_the_package_costs_nothing():
    code = "import sys, vit_deploy; print([n for n in ('torch', 'numpy', 'click') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_error_has_the_one_root_and_a_known_exit_code():
    module = importlib.import_module("vit_deploy.errors")
    found = [
        entry for entry in vars(module).values() if inspect.isclass(entry) and issubclass(entry, Exception)
    ]
    assert len(found) > 8
    for error in found:
        assert issubclass(error, errors.VitDeployError)
        assert error.exit_code in {1, 2, 3, 4, 5, 6}


def test_the_defaults_are_vit_b_16():
    import torch

    assert vit_deploy.ViT().config == vit_deploy.ViTConfig()
    assert vit_deploy.PatchEmbedding()(torch.zeros(1, 3, 224, 224)).shape == (1, 196, 768)
