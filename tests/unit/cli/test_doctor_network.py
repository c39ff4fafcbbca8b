"""trackd doctor asks the daemon, the hub and the GPU's library, and waits long for none of them."""

import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import aio
from support.serving import free_port
from trackd_daemon.cli.doctor import host, network
from trackd_daemon.doctor import facts
from trackd_proto.layout import Instance
from trackd_proto.local import instance, places
from trackd_proto.settings import Settings


@pytest.fixture
def where(tmp_path: Path) -> Instance:
    """A private instance directory."""
    found = Instance(tmp_path / "home", "host")
    places.prepare(found)
    return found


def upstream(where: Instance, address: str) -> facts.Upstream:
    return network.see_upstream(where, Settings(upstream=address))


def test_a_hub_that_cannot_be_reached(where: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = upstream(where, f"127.0.0.1:{free_port()}")
    assert (refused.outcome, refused.error) == ("unreachable", "Connection refused")

    def getaddrinfo(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    unresolved = upstream(where, "nowhere.example:1")
    assert unresolved.outcome == "unresolved"
    assert unresolved.error == "there is no address for nowhere.example: Name or service not known"


def test_something_else_that_listens_is_not_waited_for(where: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert upstream(where, address).outcome == "cookie"
        instance.load_cookie(where)
        started = time.monotonic()
        assert upstream(where, address).outcome == "silent"
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (instance.ImpostorError("who?"), "impostor"),
        (instance.VersionMismatchError("speaks 9"), "version"),
        (aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, aio.Metadata(), aio.Metadata(), "no"), "refused"),
        (aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "gone"), "silent"),
    ],
)
def test_a_hub_that_refuses(where: Instance, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str) -> None:
    async def ask(address: str, cookie: bytes) -> str:
        raise error

    instance.load_cookie(where)
    monkeypatch.setattr(network, "_ask_hub", ask)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert upstream(where, f"127.0.0.1:{server.getsockname()[1]}").outcome == outcome


def test_no_upstream_and_no_daemon_are_asked_nothing(where: Instance) -> None:
    assert upstream(where, "").outcome == "embedded"
    assert network.see_daemon(where) == facts.Daemon(None)
    where.published.write_text("{}")
    where.published.chmod(0o644)
    seen = network.see_daemon(where)
    assert seen.outcome == "unsafe" and "open to other users" in seen.error


def test_the_next_socket_is_where_the_daemon_would_make_it(where: Instance, tmp_path: Path) -> None:
    near = network.see_socket(where)
    assert near.is_near == (near.path_bytes <= 100)
    far = network.see_socket(Instance(tmp_path / ("x" * 120), "host"))
    assert not far.is_near and far.path_bytes < 108


class NvmlError(Exception):
    """As pynvml's."""


def fake_nvml(error: str = "") -> Any:
    def init() -> None:
        if error:
            raise NvmlError(error)

    return SimpleNamespace(
        NVMLError=NvmlError, nvmlInit=init, nvmlShutdown=init, nvmlDeviceGetCount=lambda: 2,
        nvmlSystemGetDriverVersion=lambda: b"550.54",
    )  # fmt: skip


def test_the_gpus_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert host.see_gpu() == facts.Gpu(True, True, 2, driver="550.54")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml("Driver Not Loaded"))
    seen = host.see_gpu()
    assert (seen.has_library, seen.devices, seen.error) == (True, None, "Driver Not Loaded")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert host.see_gpu().has_library is False


def test_versions_are_those_of_this_installation() -> None:
    seen = host.see_versions()
    assert seen.has_sdk and seen.own and seen.missing_hub == ()
