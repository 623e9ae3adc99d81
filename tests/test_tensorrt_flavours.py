"""Which TensorRT is there, which GPUs, which is chosen, and what its messages become."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from vit_deploy import tensorrt_flavours
from vit_deploy.errors import BackendMissing, UsageFailed
from vit_deploy.tensorrt_flavours import FLAVOURS, Gpus, check_version, choose_flavour


def test_installed_but_broken(monkeypatch):
    def broken(name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(tensorrt_flavours.importlib, "import_module", broken)
    found = FLAVOURS["tensorrt"].installed()
    assert "does not load: libnvinfer.so.11" in found.reason


def test_auto_prefers_the_data_centre_flavour_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(tensorrt_flavours, "find_gpus", lambda: Gpus(("9.0",)))
    for flavour in FLAVOURS.values():
        monkeypatch.setitem(sys.modules, flavour.module, SimpleNamespace(__version__="11.1.0"))
    assert choose_flavour("auto").name == "tensorrt"
    monkeypatch.setattr(tensorrt_flavours, "find_gpus", lambda: Gpus(reason="there is no driver"))
    assert choose_flavour("auto").name == "rtx"
    with pytest.raises(
        BackendMissing, match="TensorRT builds on the GPU it builds for, and there is no driver"
    ):
        choose_flavour("tensorrt")


def test_unknown_flavour():
    with pytest.raises(UsageFailed, match=r"'rtxx' \(did you mean 'rtx'\?\)"):
        choose_flavour("rtxx")


def test_versions():
    rtx, data_centre = FLAVOURS["rtx"], FLAVOURS["tensorrt"]
    check_version(rtx, "1.7.1.116", "1.7.1.116", later_is_fine=False)
    check_version(data_centre, "11.2.0", "10.13.3", later_is_fine=True)
    with pytest.raises(BackendMissing) as caught:
        check_version(rtx, "1.8.0.1", "1.7.1.116", later_is_fine=False)
    assert "pip install 'tensorrt_rtx==1.7.1.116'" in caught.value.next_command
    with pytest.raises(BackendMissing):
        check_version(data_centre, "10.13.3", "11.2.0", later_is_fine=True)


def test_messages_go_to_logging_and_are_kept(caplog):
    messages = tensorrt_flavours.Messages()
    with caplog.at_level(logging.DEBUG, logger="vit_deploy.tensorrt"):
        for severity, text in enumerate(["internal", "error", "warning", "info", "verbose"]):
            messages.add(severity, text)
            messages.add(severity, text)
    assert [record.levelname for record in caplog.records[::2]] == [
        "ERROR",
        "ERROR",
        "WARNING",
        "INFO",
        "DEBUG",
    ]
    assert messages.errors == ["internal", "error"]
    assert messages.warnings == ["warning"]
    assert messages.reason() == "error; internal"


@pytest.fixture
def fresh_search():
    tensorrt_flavours.find_gpus.cache_clear()
    yield tensorrt_flavours.find_gpus
    tensorrt_flavours.find_gpus.cache_clear()


def test_no_driver(monkeypatch, fresh_search):
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(tensorrt_flavours.ctypes, "CDLL", missing)
    found = fresh_search()
    monkeypatch.undo()
    assert "no NVIDIA driver was found" in found.reason


@pytest.mark.parametrize(
    ("status", "count", "expected"),
    [
        (100, 0, Gpus(reason="the NVIDIA driver found no usable GPU (CUDA error 100)")),
        (0, 0, Gpus(reason="the NVIDIA driver shows no GPU to this process")),
        (0, 2, Gpus(("9.0", "9.1"))),
    ],
)
def test_what_the_driver_answers(monkeypatch, fresh_search, status, count, expected):
    monkeypatch.setattr(tensorrt_flavours.ctypes, "CDLL", lambda name: FakeDriver(status, count))
    found = fresh_search()
    monkeypatch.undo()
    assert found == expected


class FakeDriver:
    """Two GPUs of compute capability 9.0 and 9.1, through the C interface."""

    def __init__(self, status: int, count: int) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's own name
        return self.status

    def cuDeviceGetCount(self, count) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value, attribute: int, device) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: device.value}[attribute]
        return 0
