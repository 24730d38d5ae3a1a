"""What surrounds a CUDA graph, with a recorder in the graph's place: CUDA itself is not met here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from vae_ext.aevb.graphed import WARM_UP_STEPS, GraphedStep

pytestmark = pytest.mark.cpu_only("stands in for CUDA")


class FakeGraph:
    """Notes what is done with it."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.events.append("register")
        self.generators.append(generator)

    def replay(self) -> None:
        self.events.append("replay")


class FakeStream:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    def wait_stream(self, other: FakeStream) -> None:
        self.events.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []
    current = FakeStream("current", events)

    @contextmanager
    def noted(before: str, after: str) -> Iterator[None]:
        events.append(before)
        yield
        events.append(after)

    fakes: dict[str, Any] = {
        "CUDAGraph": lambda: FakeGraph(events),
        "Stream": lambda device: FakeStream("side", events),
        "current_stream": lambda device: current,
        "stream": lambda stream: noted(f"on {stream.name}", f"off {stream.name}"),
        "device": lambda device: noted("on device", "off device"),
        "graph": lambda graph, stream: noted(f"record on {stream.name}", "recorded"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return events


def test_warm_up_steps_are_steps_then_one_is_recorded_and_replayed(events: list[str]) -> None:
    generator = torch.Generator()
    step = GraphedStep(lambda: events.append("step"), generator)
    for _ in range(WARM_UP_STEPS):
        step()
    warm_up = ["side waits for current", "on side", "step", "off side", "current waits for side"]
    assert events == warm_up * WARM_UP_STEPS

    events.clear()
    step()
    # The generator is known before anything is drawn; what is recorded does not run, so the first replay is this step.
    assert events == ["register", "on device", "record on side", "step", "recorded", "off device", "replay"]
    graph: Any = step.graph
    assert graph.generators == [generator]

    events.clear()
    step()
    step()
    assert events == ["replay", "replay"]
