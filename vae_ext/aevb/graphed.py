"""A training step as one CUDA graph: launched at once rather than kernel by kernel. It has not met a device yet."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP_STEPS = 3


class GraphedStep:
    """Calls `step` a few times as it is, then records it in a CUDA graph and replays that.

    Replaying repeats the kernels that were recorded on the memory they were recorded with. So `step` must leave
    parameters, optimizer state, data and sums where they are, and decide nothing by their values; what it allocates
    belongs to the graph. Noise is fresh at each replay, since the graph knows the generator it comes from.

    The first calls are steps like all others. They run on a side stream, as recording does, so that libraries make
    their workspaces and choices before it. Recording runs nothing.
    """

    def __init__(self, step: Callable[[], None], generator: torch.Generator) -> None:
        self.step = step
        self.generator = generator
        self.side_stream = torch.cuda.Stream(generator.device)
        self.warm_up_left = WARM_UP_STEPS
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.warm_up_left > 0:
            self._warm_up()
            self.warm_up_left -= 1
            return
        if self.graph is None:
            self.graph = self._record()
        self.graph.replay()

    def _warm_up(self) -> None:
        current = torch.cuda.current_stream(self.generator.device)
        self.side_stream.wait_stream(current)
        with torch.cuda.stream(self.side_stream):
            self.step()
        current.wait_stream(self.side_stream)

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        # torch's own stream for recording is one for all, and of the device that recorded first.
        with torch.cuda.device(self.generator.device), torch.cuda.graph(graph, stream=self.side_stream):
            self.step()
        return graph
