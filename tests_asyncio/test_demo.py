"""The README's first command; it serves both backends itself, so it has no twin."""

import re
import subprocess
import sys

from tests_trio.servers import ROOT

BEFORE_SIGTERM = """
pool opens
tea: order accepted
tea: payment starts
tea: audit
tea: inventory updated
-- response starts: 202
-- response sent
tea: confirmation starts
tea: confirmation sent
tea: payment made
book: order accepted
book: payment starts
book: audit
book: inventory updated
-- response starts: 202
-- response sent
""".strip().splitlines()


def test_demo():
    """Both servers show the same timeline, and the shielded payment ends before the pool closes."""
    command = [sys.executable, "-m", "examples.demo"]
    demo = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert demo.stderr == ""
    lines = re.findall(r"^ +\d+\.\d{3} (.*)$", demo.stdout, re.MULTILINE)
    assert lines.count("pool opens") == 2
    second = lines.index("pool opens", 1)
    for timeline in (lines[:second], lines[second:]):
        assert timeline[: len(BEFORE_SIGTERM)] == BEFORE_SIGTERM
        assert timeline[-3:] == ["book: payment made", "pool closes", "-- shutdown complete"]
