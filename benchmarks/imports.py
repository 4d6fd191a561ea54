"""What `import fastapi_tasks` adds to `import fastapi, anyio`, and what it must not import.

Both are timed in one fresh process, one after the other, in CPU time: the second finds what the
first has imported.
"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.measure import Spread

PROCESSES = 12
ADDED, BASE, FORBIDDEN = (
    "import fastapi_tasks, ms",
    "import fastapi, anyio, ms",
    "forbidden imports",
)
CODE = """
import sys, time
begin = time.process_time()
import fastapi, anyio
middle, before = time.process_time(), set(sys.modules)
import fastapi_tasks
end = time.process_time()
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print([(middle - begin) * 1000, (end - middle) * 1000, len(new & {"trio", "opentelemetry"})])
"""


def run_once() -> list[float]:
    output = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, check=True).stdout
    figures: list[float] = json.loads(output)
    return figures


async def run(backend: str) -> dict[str, Spread]:
    base, added, forbidden = zip(*(run_once() for _ in range(PROCESSES)), strict=True)
    return {BASE: Spread.of(base), ADDED: Spread.of(added), FORBIDDEN: Spread.of(forbidden)}
