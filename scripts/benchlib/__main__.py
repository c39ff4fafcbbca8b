"""`scripts/bench`: measures, prints the table, and with --write keeps it in docs/performance.md."""

import argparse
import json
import subprocess
import sys
import time

from benchlib import measures, runner, table, trackd_measures

assert trackd_measures.TOOL  # imported because its measures register themselves


def main() -> int:
    options = _arguments()
    if options.list:
        for name, function in measures.MEASURES.items():
            print(f"{name:16} {(function.__doc__ or '').strip()}")
        return 0
    wanted = options.only or list(measures.MEASURES)
    tools = [tool for tool in ("trackd", *runner.PEERS) if tool in options.tools]
    rows, failed = _measure(wanted, measures.Options(tools, options.quick))
    if options.merge:
        rows = table.merge([json.loads((runner.ROOT / path).read_text()) for path in options.merge] + [rows])
        tools = [tool for tool in ("trackd", *runner.PEERS) if any(tool in cells for cells in rows.values())]
    if options.json:
        (runner.ROOT / options.json).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{table.machine()}\n\n{table.markdown(rows, tools)}\n")
    if options.write:
        text = table.document(
            rows, tools, {tool: _version(tool) for tool in tools}, " ".join(["scripts/bench", *sys.argv[1:]])
        )
        (runner.ROOT / "docs/performance.md").write_text(text, encoding="utf-8")
        for name in table.READMES:
            path = runner.ROOT / name
            path.write_text(table.with_figures(name, path.read_text(encoding="utf-8"), rows, tools), encoding="utf-8")
        print("written to docs/performance.md and the READMEs")
    for name, why in failed:
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _measure(wanted: list[str], options: measures.Options) -> tuple[dict[str, dict[str, float]], list[tuple[str, str]]]:
    tables: list[measures.Table] = []
    failed = []
    for name in wanted:
        begin = time.monotonic()
        print(f"{name} …", end=" ", flush=True, file=sys.stderr)
        try:
            tables.append(measures.MEASURES[name](options))
        except (runner.ProbeError, OSError, subprocess.CalledProcessError) as error:
            failed.append((name, str(error)))
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)
    return table.merge(list(tables)), failed


def _version(tool: str) -> str:
    code = f"from importlib.metadata import version; print(version({tool!r}))"
    asked = subprocess.run([runner.python(tool), "-c", code], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="trackd and its peers on the same work")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work: rougher tails, about two minutes")
    parser.add_argument("--only", action="append", choices=list(measures.MEASURES), help="one measure; may be repeated")
    parser.add_argument("--tools", nargs="+", choices=("trackd", *runner.PEERS), default=["trackd", *runner.PEERS])
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--merge", action="append", metavar="JSON", help="add figures kept by --json")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and the figures in the READMEs")
    parser.add_argument(
        "--torch", action="store_true", help="install torch in an environment of its own, for log_torch"
    )
    parser.add_argument("--list", action="store_true", help="name the measures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
