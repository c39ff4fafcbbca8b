"""docs/configuration.md from the settings table."""

import sys
from pathlib import Path

import msgspec
from trackd_proto import settings as table

TARGET = Path(__file__).parent.parent / "docs/configuration.md"

HEAD = """# Configuration

<!-- Written by scripts/gen-config-docs from proto/trackd_proto/settings.py: change that, then run it. -->

A value comes from the strongest layer that gives one, strongest last:

1. the default
2. `/etc/trackd/config.toml`
3. the user's file: `$XDG_CONFIG_HOME/trackd/config.toml`, else `~/.config/trackd/config.toml`
4. the project's file: the nearest `trackd.toml`, from the working directory upwards to the root of the git repository,
   the home directory or `/`, whichever comes first; read only if it belongs to you or to root
5. the environment: `TRACKD_<NAME>`; an empty variable counts as not set
6. `trackd.init(settings={...})`
7. arguments of `trackd.init()` and of the command line

Files hold lines such as `project = "mnist"` (TOML, no tables); a relative path in a file is relative to the file.
Sizes may be written as `"2 GiB"`. `trackd config list --origin` shows every value and where it came from.

A value that cannot be used never stops a training run: it is named in a warning, and the layer below stands. For the
command line it is an error. Variables whose names begin with `TRACKD__` are trackd's own and no settings.
"""


def page() -> str:
    """The whole document."""
    lines = [HEAD, "| setting | variable | expects | default |", "|---|---|---|---|"]
    defaults = table.Settings()
    for name in table.NAMES:
        expected = (table.meta(name).extra or {})["expected"]
        value = getattr(defaults, name)
        shown = "" if value in ("", ()) else f"`{msgspec.json.encode(value).decode()}`"
        lines.append(f"| [`{name}`](#{name}) | `{table.variable(name)}` | {expected} | {shown} |")
    for name in table.NAMES:
        meta = table.meta(name)
        lines += ["", f"## {name}", "", str(meta.description)]
        if example := (meta.extra or {}).get("example"):
            lines += ["", f"Example: `{table.variable(name)}={example}`"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with ``--check`` compare it."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            print(f"{TARGET} is out of date: run scripts/gen-config-docs", file=sys.stderr)
            return 1
        print(f"{TARGET.name} is up to date")
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
