"""Asks the hub about one run, as a program of its own: a training process imports no gRPC and waits no longer than it
wants to. ``python -c … HOME UPSTREAM_COOKIE PROJECT RUN_ID`` writes one `Answer` as msgpack to standard output."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trackd_proto.asking import Answer
from trackd_proto.local import hub_client, places


def ask(home: Path, upstream_cookie: str, project: str, run_id: str) -> Answer:
    """What the hub of this home (else the one whose cookie this is) has of a run; it is started if need be."""
    try:
        client = hub_client.HubClient.find(places.instance(home), can_start=True, upstream_cookie=upstream_cookie)
        with client.open(hub_client.run_path(project, run_id)) as response:
            return Answer("found", run=response.read())
    except hub_client.NotFoundError:
        return Answer("missing")
    except (hub_client.HubError, hub_client.BROKEN, OSError) as error:
        return Answer("unknown", why=str(error))


def main(arguments: Sequence[str]) -> None:
    """The program."""
    home, upstream_cookie, project, run_id = arguments
    # Whatever a started daemon or a library prints must not end up in the answer.
    out = os.dup(1)
    os.dup2(2, 1)
    answer = msgspec.msgpack.encode(ask(Path(home), upstream_cookie, project, run_id))
    with os.fdopen(out, "wb") as file:
        file.write(answer)
    sys.exit(0)
