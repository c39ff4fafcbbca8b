import pytest
from trackd_daemon.cli.links import forward_line, has_display


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({}, ""),
        ({"SSH_CONNECTION": "1.2.3.4 5 10.0.0.9 22", "USER": "ann"}, "ssh -N -L 8000:127.0.0.1:8000 ann@10.0.0.9"),
        ({"SSH_CONNECTION": "1.2.3.4 5 10.0.0.9 2222"}, "ssh -N -p 2222 -L 8000:127.0.0.1:8000 10.0.0.9"),
        ({"SSH_CONNECTION": "odd"}, ""),
    ],
)
def test_the_way_in_over_ssh(environ: dict[str, str], line: str) -> None:
    assert forward_line("http://127.0.0.1:8000", environ) == line


def test_a_display_is_needed_for_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert not has_display({}) and has_display({"DISPLAY": ":0"}) and has_display({"WAYLAND_DISPLAY": "w"})
