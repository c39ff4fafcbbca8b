"""Looks at what is installed, and at the GPU's library."""

import importlib
import importlib.metadata
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Final

from trackd_proto.version import VERSION

from trackd_daemon.doctor import facts

_HUB: Final = ("duckdb", "numpy", "sqlalchemy", "fastapi", "uvicorn")


def see_versions() -> facts.Versions:
    """Of this program, of the distribution it is part of, and whether its other parts are there."""
    installed = ""
    with suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.version("trackd")
    missing = tuple(name for name in _HUB if importlib.util.find_spec(name) is None)
    return facts.Versions(VERSION, installed, importlib.util.find_spec("trackd") is not None, missing)


def see_gpu() -> facts.Gpu:
    """What NVIDIA's library answers. It may hang with a broken driver: call it with a deadline."""
    has_driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
    try:
        nvml = importlib.import_module("pynvml")
    except (ImportError, OSError) as error:
        return facts.Gpu(has_driver, False, error=str(error))
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return facts.Gpu(has_driver, True, error=str(error))
    try:
        driver = nvml.nvmlSystemGetDriverVersion()
        text = driver.decode() if isinstance(driver, bytes) else str(driver)
        return facts.Gpu(True, True, int(nvml.nvmlDeviceGetCount()), driver=text)
    except nvml.NVMLError as error:
        return facts.Gpu(True, True, error=str(error))
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
