"""The hub: what is asked of it, and what its failures become. The network is never touched."""

from __future__ import annotations

import fnmatch
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from vit_deploy.errors import ImportFailed, UsageFailed
from vit_deploy.weights import load_model


@pytest.fixture
def asked(save_timm, monkeypatch):
    """A hub with one timm checkpoint; gives the list of what was asked of it."""
    calls = []

    def download(repo_id, *, revision, allow_patterns):
        calls.append((repo_id, revision, allow_patterns))
        return str(asked_directory)

    asked_directory, _ = save_timm()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_only_needed_files_are_fetched(asked):
    model = load_model("hf-hub:timm/vit_tiny_patch16_224.augreg@v1.0")
    assert (model.source.kind, model.source.name) == ("timm", "timm/vit_tiny_patch16_224.augreg@v1.0")
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == ("timm/vit_tiny_patch16_224.augreg", "v1.0")
    for wanted in (
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
    ):
        assert any(fnmatch.fnmatch(wanted, pattern) for pattern in patterns)
    for unwanted in ("pytorch_model.bin", "README.md", "tf_model.h5", "code.py", "optimizer.safetensors"):
        assert not any(fnmatch.fnmatch(unwanted, pattern) for pattern in patterns)


def test_pickles_are_fetched_only_without_safetensors(save_timm, monkeypatch):
    directory, _ = save_timm(safe=False)
    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *_, allow_patterns, **__: asked.append(allow_patterns) or directory,
    )
    assert load_model("hf-hub:somebody/vit").config.embed_dim == 48
    assert ["pytorch_model.bin" in patterns for patterns in asked] == [False, True]


def test_offline_is_a_plain_error(monkeypatch, tmp_path):
    """The real client, which the test set-up has put offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ImportFailed, match="not in the local cache") as caught:
        load_model("hf-hub:timm/vit_tiny_patch16_224.augreg_in21k")
    assert caught.value.exit_code == 6
    assert "hf download timm/vit_tiny_patch16_224.augreg_in21k --local-dir" in caught.value.next_command


def _http(kind):
    return kind("no", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (_http(errors.RepositoryNotFoundError), "knows no 'a/b'"),
        (_http(errors.GatedRepoError), "'a/b' is gated"),
        (_http(errors.RevisionNotFoundError), "no revision 'main'"),
        (_http(errors.HfHubHTTPError), "could not be fetched"),
        (OSError(28, "No space left on device"), "No space left"),
        (ConnectionError(""), "ConnectionError"),
    ],
)
def test_failures(monkeypatch, error, word):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ImportFailed, match=word) as caught:
        load_model("hf-hub:a/b@main")
    assert caught.value.__cause__ is error
    assert caught.value.expected


@pytest.mark.parametrize(
    "reference", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:a b", "hf-hub:a/b@", "hf-hub:../../etc"]
)
def test_no_name(reference):
    with pytest.raises(UsageFailed, match="no name on the hub"):
        load_model(reference)
