"""Break the library on purpose, one line at a time, and see which test notices.

    python -m tests_trio.mutations [--check] [--only PATTERN] [--jobs N]

Each mutant is tested in a copy of the project, first by the test that noticed it the last time
(`witnesses.txt`, which a run brings up to date). If that does not, by all: those that start servers
only for what survives the others. A mutant by which the tests hang is caught, too.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Timer

from tests_trio.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
PACKAGE = Path("src", "fastapi_tasks")
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__")
WITNESSES = Path(__file__).parent / "witnesses.txt"
TIMEOUT = 60.0  # seconds for one test
GUARANTEES = [f"G{number}" for number in range(1, 25)]

SLOW = ("test_containment.py", "test_programs.py")
SERVERS = ("test_servers.py", "test_faults.py", "test_demo.py")  # they start some
NEAREST = {  # where a guarantee has most of its tests: those run first, to be quick
    "test_timing.py": GUARANTEES[:7],
    "test_running.py": ["G1", *GUARANTEES[7:11]],
    "test_failure.py": GUARANTEES[11:14],
    "test_shutdown.py": GUARANTEES[14:18],
    "test_overload.py": ["G19"],
    "test_references.py": ["G13", "G20"],
    "test_objects.py": ["G9", "G10", "G12"],
    "test_containment.py": ["G11", "G12", "G21"],
    "test_runs.py": ["G3", "G6"],
    "test_instruments.py": ["G7", "G12", "G17"],
    "test_dependencies.py": ["G10", "G13", "G20", "G22"],
    "test_cleanups.py": ["G22"],
    "test_jobs.py": ["G23"],
    "test_history.py": ["G23"],
    "test_clocks.py": ["G24"],
}


def problems(mutants: Iterable[Mutant] = MUTANTS) -> Iterator[str]:
    """What is wrong with the list."""
    for mutant in mutants:
        text = (ROOT / PACKAGE / mutant.file).read_text()
        if (count := text.count(mutant.old)) == 1:
            try:
                compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
            except SyntaxError as error:
                yield f"{mutant.guarantee}: {mutant.file}, {mutant.breaks}: {error}"
        else:
            yield f"{mutant.guarantee}: {mutant.file} has this {count} times: {mutant.old!r}"
    for missing in sorted({*GUARANTEES} - {mutant.guarantee for mutant in mutants}):
        yield f"{missing}: no mutant breaks it"


def first_failure(copy: Path, tests: Iterable[str]) -> str | None:
    """Run tests in a copy of the project, with its own sources; return the first that fails."""
    env = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONUNBUFFERED": "1"}
    where = "import importlib.util as i; print(i.find_spec('fastapi_tasks').origin)"
    found = subprocess.check_output([sys.executable, "-c", where], cwd=copy, env=env, text=True)
    assert Path(found.strip()) == copy / PACKAGE / "__init__.py", f"these are not ours: {found}"
    command = [sys.executable, "-m", "pytest", "-x", "-v", "-p", "no:cacheprovider", *tests]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=copy, env=env, start_new_session=True, **pipes) as run:
        output = "".join(lines_until_it_hangs(run))
        run.wait()
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # what it started
    if run.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (tests_.+?)(?: - .*)?$", output, re.MULTILINE)
    hangs = re.search(r"^(tests_\S+::.+?) *\Z", output, re.MULTILINE)
    return failed[1] if failed else hangs[1] if hangs else f"exit status {run.returncode}"


def lines_until_it_hangs(run: subprocess.Popen) -> Iterator[str]:
    """What the tests print, a line when each has ended; past `TIMEOUT` they are killed."""
    lines = iter(run.stdout)
    while True:
        killer = Timer(TIMEOUT, os.killpg, (run.pid, signal.SIGKILL))
        killer.start()
        line = next(lines, None)
        killer.cancel()
        if line is None:
            return
        yield line


def stages(copy: Path, guarantee: str) -> Iterator[list[str]]:
    """The files with tests: those that start no servers, the nearest first, then the others."""
    files = [file for file in copy.glob("tests_*/test_*.py") if file.name != "test_mutations.py"]
    files.sort(reverse=True)  # tests_trio first
    files.sort(
        key=lambda file: (guarantee not in NEAREST.get(file.name, ()), file.name in SLOW, file.name)
    )
    for starts_servers in (False, True):
        yield [str(file) for file in files if (file.name in SERVERS) is starts_servers]


def who_notices(project: Path, mutant: Mutant, witness: str | None) -> str | None:
    """The first test that fails with this mutant."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory).resolve() / "copy"
        shutil.copytree(project, copy)
        file = copy / PACKAGE / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        if witness and is_witness(witness, copy, project):
            return witness
        for files in stages(copy, mutant.guarantee):
            moody: list[str] = []
            while failed := first_failure(copy, [*files, *map("--deselect={}".format, moody)]):
                if failed in moody or not failed.startswith("tests_"):
                    return failed
                if is_witness(failed, copy, project):
                    return failed
                moody.append(failed)
    return None


def is_witness(test: str, copy: Path, project: Path) -> bool:
    """Whether it fails with the mutant; not on a busy machine, or without the mutant, too."""
    return test == first_failure(copy, [test]) and not first_failure(project, [test])


def read_witnesses() -> dict[str, str]:
    lines = WITNESSES.read_text().splitlines() if WITNESSES.exists() else []
    return dict(line.rsplit(": ", 1) for line in lines)


def test_all(mutants: list[Mutant], jobs: int) -> int:
    """Print a line for each mutant; return how many survived."""
    survivors = 0
    witnesses = read_witnesses()
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(jobs) as pool:
        project = Path(directory).resolve() / "project"
        shutil.copytree(ROOT, project, ignore=NOT_COPIED)  # it may change meanwhile
        running = {
            pool.submit(who_notices, project, mutant, witnesses.get(str(mutant))): mutant
            for mutant in mutants
        }
        try:
            for future in as_completed(running):
                mutant, noticed = running[future], future.result()
                print(f"{mutant}: {noticed or 'SURVIVED'}", flush=True)
                survivors += noticed is None
                if noticed:
                    witnesses[str(mutant)] = noticed
        finally:
            pool.shutdown(cancel_futures=True)
            known = [(str(mutant), witnesses.get(str(mutant))) for mutant in MUTANTS]
            lines = [f"{mutant}: {witness}\n" for mutant, witness in known if witness]
            WITNESSES.write_text("".join(lines))
    return survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only see whether the list applies")
    parser.add_argument("--only", metavar="PATTERN", default="", help="of guarantee, file or words")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    if found := list(problems()):
        sys.exit("\n".join(found))
    chosen = [m for m in MUTANTS if re.search(options.only, f"{m.guarantee} {m.file} {m.breaks}")]
    if not options.check and (survivors := test_all(chosen, options.jobs)):
        sys.exit(f"{survivors} of {len(chosen)} survived")
    print(f"{len(chosen)} mutants: all {'apply' if options.check else 'are noticed'}")


if __name__ == "__main__":
    main()
