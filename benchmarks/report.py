"""What was measured, as a table for the terminal and as a document for a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich import box
from rich.table import Table

from benchmarks.machine import QUIET_CORES, Bandwidth
from benchmarks.suite import Measurement
from benchmarks.workloads import target

_NUMBERS = ("ours", "p80", "eager", "compile", "× eager", "× compile", "torch", "call", "bound", "bandwidth", "memory")
_UNITS = {
    "eager": "times as fast as eager",
    "compile": "times as fast as torch.compile",
    "bandwidth": "of the bandwidth",
}


@dataclass(frozen=True)
class Comparison:
    """What ours reached beside what it has to reach."""

    reached: float
    wanted: float

    @property
    def missed(self) -> bool:
        return self.reached < self.wanted

    def shown(self, form: str, floor: float) -> str:
        """In the format `form`, with what is wanted beside it where that is missed or more than `floor`."""
        text = format(self.reached, form)
        if self.missed:
            return f"[bold red]{text} < {self.wanted:{form}} ✗[/]"
        return f"{text} ≥ {self.wanted:{form}}" if self.wanted > floor else text


@dataclass(frozen=True)
class Report:
    """All measurements of one run, and what they are judged by."""

    measurements: Sequence[Measurement]
    bandwidth: Bandwidth
    dtype: torch.dtype
    settings: Mapping[str, Any]

    def compare(self, measurement: Measurement) -> dict[str, Comparison]:
        """The speed against each peer, and the share of the bandwidth where memory is what it works on."""
        wanted = target(measurement.workload, self.dtype, self.settings["device"])
        compared = {
            "eager": Comparison(measurement.speedup("eager"), wanted.eager),
            "compile": Comparison(measurement.speedup("compile"), wanted.compile),
        }
        share = measurement.share_of_bandwidth()
        return compared if share is None else compared | {"bandwidth": Comparison(share, wanted.bandwidth)}

    def misses(self) -> Iterator[str]:
        """A sentence for every target that was missed."""
        for measurement in self.measurements:
            for name, comparison in self.compare(measurement).items():
                if comparison.missed:
                    reached = f"{comparison.reached:.2f} {_UNITS[name]}"
                    at_bound = comparison.reached * measurement.timings["ours"].p20 / measurement.bound()
                    yield (
                        f"{measurement.workload.name}: {reached}, expected {comparison.wanted:g} or more;"
                        f" {at_bound:.2f} at its bound."
                    )

    def conditions(self) -> Iterator[str]:
        """Where and how it was measured."""
        machine = self.settings["machine"]
        if "gpu" in machine:
            yield f"{machine['gpu']}, CUDA {machine['cuda']}"
        yield (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['isa']};"
            f" {_dtype_name(self.dtype)}; allocator {self.settings['allocator']}"
        )
        yield (
            f"torch {machine['torch']}, vae_ext {machine['vae_ext']} at {machine['commit']},"
            f" compiler {machine['compiler']}"
        )
        yield (
            f"memory reads {self.bandwidth.read / 1e9:.1f} GB/s, copies {self.bandwidth.copy / 1e9:.1f} GB/s;"
            f" others kept {self.settings['cores_busy_with_others']:.2f} cores busy meanwhile"
        )
        if self.settings["cores_busy_with_others"] > QUIET_CORES:
            yield "[bold red]The machine was busy: these numbers mean little.[/]"
        if self.settings["quick"]:
            yield "A quick look: not to be quoted."
        if self.settings["left_out"]:
            yield f"Left out for want of memory: {', '.join(self.settings['left_out'])}."

    def table(self) -> Table:
        """A row for each measurement; what misses its target is red, with a cross."""
        table = Table(title="µs a call, and how many times as fast ours is", box=box.SIMPLE)
        for heading in ("operator", "pass", "shape"):
            table.add_column(heading, no_wrap=True)
        for heading in _NUMBERS:
            table.add_column(heading, justify="right", no_wrap=True)
        for measurement, following in zip(self.measurements, [*self.measurements[1:], None], strict=True):
            last = following is None or following.workload.operator != measurement.workload.operator
            table.add_row(*self._row(measurement), end_section=last)
        return table

    def document(self) -> dict[str, Any]:
        """Everything, for JSON: times in µs unless a name says otherwise, sizes in bytes."""
        return {
            **self.settings,
            "dtype": _dtype_name(self.dtype),
            "bandwidth_bytes_per_second": asdict(self.bandwidth),
            "measurements": [self._entry(measurement) for measurement in self.measurements],
        }

    def _row(self, measurement: Measurement) -> list[str]:
        workload, timings, compared = measurement.workload, measurement.timings, self.compare(measurement)
        ours = timings["ours"]
        return [
            workload.operator,
            workload.direction,
            "×".join(map(str, workload.shape)),
            _time(ours.p20),
            _time(ours.p80),
            _time(timings["eager"].p20),
            _time(timings["compile"].p20),
            compared["eager"].shown(".1f", floor=1),
            compared["compile"].shown(".1f", floor=1),
            _time(timings["torch"].p20),
            _time(timings["call"].p20),
            f"{measurement.bound() / ours.p20:.0%}",
            compared["bandwidth"].shown(".0%", floor=0) if "bandwidth" in compared else "",
            f"{measurement.peaks['ours'] / measurement.sizes.new:.2f}",
        ]

    def _entry(self, measurement: Measurement) -> dict[str, Any]:
        return {
            "operator": measurement.workload.operator,
            "shape": measurement.workload.shape,
            "pass": measurement.workload.direction,
            "timings": {name: asdict(timing) for name, timing in measurement.timings.items()},
            "compared": {name: asdict(found) for name, found in self.compare(measurement).items()},
            "bound": measurement.bound(),
            "compile_seconds": measurement.compile_seconds,
            "page_faults_per_round": measurement.page_faults_per_round,
            "bytes_moved": measurement.sizes.moved,
            "bytes_of_results": measurement.sizes.new,
            "peak_bytes": dict(measurement.peaks),
        }


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _time(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:,.0f}"
