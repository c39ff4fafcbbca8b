"""Inside Jupyter: the run's page below the cell. IPython is asked, never imported."""

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from trackd_proto.spool import Links

if TYPE_CHECKING:
    from trackd.run import Run

_HEIGHT: Final = 420
_WAIT_S: Final = 1.0


def is_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    return hasattr(_shell(), "kernel")


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    try:
        return ipython.get_ipython() if ipython is not None else None
    except Exception:
        return None


def show_when_known(run: "Run") -> None:
    """Show the run's page below the first cell that ends with the hub known (the first waits a second for it)."""
    shell = _shell()
    patience = [_WAIT_S]

    def after_cell(_result: Any = None) -> None:
        # An error in here must not break the user's cells.
        with contextlib.suppress(Exception):
            until = time.monotonic() + (patience.pop() if patience else 0)
            while (links := run._lane.links()) is None and not run.is_finished and time.monotonic() < until:
                time.sleep(0.02)
            if links is None and not run.is_finished:
                return
            shell.events.unregister("post_run_cell", after_cell)
            if links is not None:
                show(links, run.name, run.path)

    with contextlib.suppress(Exception):
        shell.events.register("post_run_cell", after_cell)


def show(links: Links, name: str, path: str) -> None:
    """Display the run's page now."""
    display = sys.modules.get("IPython.display")
    if display is not None:
        display.display(display.HTML(html(links, name, path)))


def html(links: Links | None, name: str, path: str) -> str:
    """A link to the run and its page in a frame."""
    import html as escape  # noqa: PLC0415 - with its table of entities 2 ms that only notebooks need

    title = f"{escape.escape(name)} <code>{escape.escape(path)}</code>"
    if links is None or not links.run_url:
        return f"<p>trackd: {title}</p>"
    fragment = f"#ticket={links.ticket}" if links.ticket else ""
    address = escape.escape(links.run_url + fragment, quote=True)
    return (
        f'<p>trackd: <a href="{address}" target="_blank" rel="noopener">{title}</a></p>'
        f'<iframe src="{address}" width="100%" height="{_HEIGHT}" style="border:0" title="trackd"></iframe>'
    )
