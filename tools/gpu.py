"""Everything that needs a GPU, in one go: `python tools/gpu.py OUT`.

Builds for the device's architecture, beside the library in the tree, with this Python as it is; tests on the device;
looks for bad and uninitialised memory and for races; measures. A part that fails does not stop the others, but without
a build there is nothing to test. OUT gets a log of each part, summary.json, and the results of the benchmark; the exit
status is 0 only if every part ran and passed. A speed is no part of that: the benchmark says which it wanted and got.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Lock
from time import monotonic, sleep
from typing import IO, Any

import build_config

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "gpu"
LIBRARY = BUILD / "vae_ext" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
# All parts together, in seconds; what a part does not use is left to those after it.
WHOLE = 580
WORKERS = 8
SANITIZERS = ("memcheck", "racecheck", "initcheck")

# `vae-ext benchmark`, whose command line wants more than such a machine has. The whole suite compiles for longer than
# there is time; what is begun at the end of three minutes is finished.
_MEASURE = """
import sys
from pathlib import Path
from benchmarks import run
from vae_ext.errors import UserError
if __name__ == "__main__":
    try:
        run.run(run.Options(device="cuda", quick=True, minutes=3.0, force=True, out=Path(sys.argv[1])))
    except UserError as error:
        sys.exit(f"benchmark: {error}")
"""

_LOGS = Lock()
# Parts have sessions of their own, which Ctrl-C does not reach.
_INTERRUPTED = Event()


@dataclass(frozen=True)
class Part:
    """One command; parts of one group run side by side. Several may share a log."""

    name: str
    command: Sequence[str]
    log: str
    seconds: int
    env: Mapping[str, str] = field(default_factory=dict)
    obstacle: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a part went; `words` are its last ones, or why it did not run."""

    part: str
    passed: bool
    seconds: float
    words: str


def device() -> dict[str, Any] | str:
    """What torch and the device are, or why there is none."""
    try:
        import torch
    except ImportError as error:
        return f"{sys.executable} cannot import torch ({error}); make gpu PYTHON=... names another Python"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} of {sys.executable} is built without CUDA; install one that is built with it"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    return {
        "device": torch.cuda.get_device_name(),
        "capability": f"{major}.{minor}",
        "memory": torch.cuda.get_device_properties(0).total_memory,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def groups(capability: str, out: Path) -> list[list[Part]]:
    """What to run, in order."""
    build = {
        "BUILD_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": capability,
        # Where in the source the sanitizers find something; costs nothing at run time.
        "CMAKE_ARGS": "-DCMAKE_CUDA_FLAGS=-lineinfo",
    }
    compile_all = [sys.executable, "setup.py", "--quiet", "build_ext", f"--build-lib={BUILD}", f"--build-temp={BUILD}"]
    pytest = [sys.executable, "-m", "pytest", "--device", "cuda", "-p", "no:cacheprovider", "-q"]
    workers = ["-n", str(WORKERS)] if importlib.util.find_spec("xdist") else []
    single = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    measure = [sys.executable, "-c", _MEASURE, str(out)]
    return [
        [Part("build", compile_all, "build.log", 240, build, missing_builder())],
        [Part("tests", [*pytest, *workers, "-m", "not large"], "tests.log", 240, single)],
        [Part("beyond 2^31", [*pytest, "-m", "large", "tests/test_cuda.py"], "tests.log", 90, single)],
        [_sanitizer(tool) for tool in SANITIZERS],
        [Part("benchmark", measure, "benchmark.log", 240)],
    ]


def missing_builder() -> str | None:
    """What a build needs and this Python has not: its licence is written as setuptools 77 and later want it."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return f"{sys.executable} has no setuptools, expected 77 or later"
    if int(version.partition(".")[0]) < 77:
        return f"setuptools is {version}, expected 77 or later"
    return None if build_config.find_program("cmake") else "cmake was not found"


def _sanitizer(tool: str) -> Part:
    program = find_sanitizer(os.environ)
    # torch asks the driver for what it does not always have; what fails for good raises.
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []
    passing = [sys.executable, "-m", "tests.cuda_pass", "40"]
    command = [program or "", "--tool", tool, *options, "--error-exitcode", "1", *passing]
    # Without torch's cache every tensor has its own bounds, and none is taken for initialised because of another.
    env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    obstacle = None if program else "compute-sanitizer was not found (it comes with the CUDA toolkit)"
    return Part(tool, command, "sanitizers.log", 100, env, obstacle)


def find_sanitizer(env: Mapping[str, str]) -> str | None:
    """compute-sanitizer on the PATH, or in the CUDA toolkit."""
    homes = [home for home in (env.get("CUDA_HOME"), "/usr/local/cuda") if home]
    folders = [str(Path(home, folder)) for home in homes for folder in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([env.get("PATH", os.defpath), *folders]))


def run(part: Part, out: Path, seconds: float) -> Outcome:
    """Runs one part for so long at most, with its output in its log."""
    if part.obstacle:
        return Outcome(part.name, False, 0.0, f"not run: {part.obstacle}")
    limit = min(part.seconds, seconds)
    if limit < 5:
        return Outcome(part.name, False, 0.0, "not run: no time is left")
    env = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), "VAE_EXT_LIBRARY": str(LIBRARY)}
    env |= dict(part.env)
    start = monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        status = _wait(part, env, output, limit)
        output.seek(0)
        text = output.read()
    seconds = monotonic() - start
    with _LOGS, (out / part.log).open("a") as log:
        log.write(f"== {part.name}: {shlex.join(part.command)}\n{text}\n")
    words = last_line(text) or "no output"
    if status is None:
        return Outcome(part.name, False, seconds, f"stopped after {limit:.0f} seconds: {words}")
    return Outcome(part.name, status == 0, seconds, words if status == 0 else f"exit status {status}: {words}")


def _wait(part: Part, env: Mapping[str, str], output: IO[str], limit: float) -> int | None:
    """The exit status, or None where the part and all that it started had to be killed."""
    process = subprocess.Popen(
        part.command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    end = monotonic() + limit
    while process.poll() is None:
        if monotonic() > end or _INTERRUPTED.is_set():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
        sleep(0.1)
    return process.returncode


def last_line(text: str) -> str:
    lines = [line.strip(" =") for line in text.splitlines() if line.strip(" =")]
    return lines[-1] if lines else ""


def run_all(planned: Sequence[Sequence[Part]], out: Path) -> Iterator[Outcome]:
    """Group after group, whatever fails; without a build there is nothing to test."""
    end = monotonic() + WHOLE
    built = True
    for group in planned:
        if not built:
            yield from (Outcome(part.name, False, 0.0, "not run: the build failed") for part in group)
            continue
        with ThreadPoolExecutor(len(group)) as pool:
            running = [pool.submit(run, part, out, end - monotonic()) for part in group]
            try:
                outcomes = [part.result() for part in running]
            except KeyboardInterrupt:
                _INTERRUPTED.set()
                raise
        built = built and (group[0].name != "build" or outcomes[0].passed)
        yield from outcomes


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield f"{'part':12} {'':7} {'seconds':>7}"
    for outcome in outcomes:
        verdict = "ok" if outcome.passed else "NOT RUN" if outcome.words.startswith("not run") else "FAILED"
        yield f"{outcome.part:12} {verdict:7} {outcome.seconds:7.0f}  {outcome.words[:120]}"


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("gpu: name a folder for the results: make gpu OUT=dir")
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    found = device()
    planned = groups(found["capability"] if isinstance(found, dict) else "", out)
    for log in {part.log for group in planned for part in group}:
        (out / log).unlink(missing_ok=True)
    outcomes = []
    if isinstance(found, dict):
        print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
        for outcome in run_all(planned, out):
            print(f"{outcome.part}: {'ok' if outcome.passed else 'FAILED'}, {outcome.words}", flush=True)
            outcomes.append(outcome)
    else:
        print(f"Nothing can run: {found}")
        outcomes = [Outcome(part.name, False, 0.0, f"not run: {found}") for group in planned for part in group]
    passed = all(outcome.passed for outcome in outcomes)
    summary = {"device": found, "passed": passed, "parts": [asdict(outcome) for outcome in outcomes]}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    measured = out / "benchmark.log"
    if measured.is_file():
        print(measured.read_text(errors="replace"))
    print(*table(outcomes), sep="\n")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
