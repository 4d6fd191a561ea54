"""`make faults`: run every fault scenario on every server, and write the table of the docs."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests_trio.faults import GRACEFUL, SCENARIOS
from tests_trio.faults_scene import Outcome
from tests_trio.servers import ROOT

PAGE = ROOT / "docs" / "design" / "faults.md"
BEGIN, END = "<!-- make faults: begin -->", "<!-- make faults: end -->"
COLUMNS = ("handed_over", "completed", "failed", "cancelled", "dropped", "refused", "killed")


def rows() -> Iterator[str]:
    counts = [column.replace("_", " ") for column in COLUMNS]
    yield row("scenario", "server", *counts, "log lines", "shutdown")
    yield row("---", "---", *["---:"] * len(COLUMNS), "---", "---:")
    for title, scenario in SCENARIOS.items():
        for kind in GRACEFUL:
            with tempfile.TemporaryDirectory() as directory:
                outcome = scenario(kind, Path(directory))
            outcome.tally.check()
            yield row(title, kind, *figures(outcome))


def figures(outcome: Outcome) -> list[str]:
    counts = [str(getattr(outcome.tally, column)) for column in COLUMNS]
    return [*counts, outcome.tally.lines or "none", f"{outcome.seconds:.1f} s"]


def row(*cells: str) -> str:
    line = f"| {' | '.join(cells)} |"
    print(line, flush=True)
    return line


def main() -> None:
    table = "\n".join([BEGIN, "", *rows(), "", END])
    text = PAGE.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    assert len(pattern.findall(text)) == 1, f"{PAGE.name} has no place for the table"
    PAGE.write_text(pattern.sub(lambda _: table, text))


if __name__ == "__main__":
    main()
