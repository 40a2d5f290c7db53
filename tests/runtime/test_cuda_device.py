"""has_cuda_device: a GPU is one that the driver offers."""

from typing import Any

import pytest

from pdeinfer.runtime.cuda import has_cuda_device


class Driver:
    """A stand-in for CUDA's driver."""

    def __init__(self, result: int, devices: int) -> None:
        self._result = result
        self._devices = devices

    def cuInit(self, _: int) -> int:  # noqa: N802  # the driver's name
        return self._result

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._devices
        return 0


@pytest.mark.parametrize(
    ("driver", "has_device"), [(Driver(0, 2), True), (Driver(0, 0), False), (Driver(100, 1), False), (None, False)]
)
def test_a_gpu_is_one_that_the_driver_offers(
    driver: Driver | None, has_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: str) -> Driver:
        if driver is None:
            raise OSError("no such library")
        return driver

    monkeypatch.setattr("pdeinfer.runtime.cuda.ctypes.CDLL", load)

    assert has_cuda_device() == has_device
