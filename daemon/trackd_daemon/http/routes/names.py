"""Names as path segments: a name may contain anything, a slash included (see `guard.split_path`)."""

from typing import Final

from starlette.convertors import Convertor, register_url_convertor

from trackd_daemon.http.guard import SLASH


class NameConvertor(Convertor[str]):
    """One path segment, with its encoded slashes restored."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """The name."""
        return value.replace(SLASH, "/")

    def to_string(self, value: str) -> str:
        """The segment."""
        return value.replace("/", SLASH)


register_url_convertor("name", NameConvertor())

PROJECT: Final = "/api/v1/projects/{project:name}"
RUN: Final = "/api/v1/runs/{project:name}/{run:name}"
