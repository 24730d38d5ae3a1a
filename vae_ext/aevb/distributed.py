"""Several processes that train one model, as `torchrun` starts them; one process is a team of one."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vae_ext.errors import UserError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Team:
    """The processes that share each minibatch. Every method but `share` must be called by all of them alike.

    Attributes:
        rank: which of them this is.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of so many rows, next to each other."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def replicate(self, module: nn.Module) -> nn.Module:
        """The module with the parameters of the first process, and gradients that are means over all."""
        return module if self.size == 1 else DistributedDataParallel(module, gradient_as_bucket_view=True)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of everyone's `value`."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def gather(self, answer: Answer) -> list[Answer]:
        """Everyone's answer, in the order of ranks."""
        if self.size == 1:
            return [answer]
        answers: list[Answer] = [answer] * self.size
        dist.all_gather_object(answers, answer)
        return answers

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Around what may fail in one process alone, and in which they do not talk: then it fails in all of them.

        Raises:
            UserError: that of this process, or one which says who had it.
        """
        fault: UserError | None = None
        try:
            yield
        except UserError as error:
            fault = error
        faults = self.gather(None if fault is None else str(fault))
        if fault is not None:
            raise fault
        for rank, message in enumerate(faults):
            if message is not None:
                raise UserError(f"process {self.rank} stops, since process {rank} does: {message}")

    def any_wishes(self, *wishes: bool) -> tuple[bool, ...]:
        """Of each wish, whether any process has it."""
        if self.size == 1:
            return wishes
        decision = torch.tensor(wishes, dtype=torch.uint8)
        dist.all_reduce(decision, dist.ReduceOp.MAX)
        return tuple(bool(wish) for wish in decision.tolist())

    def wait_for_all(self) -> None:
        """Until every process has come this far: the end of one would be the end of the others."""
        self.gather(None)


def join_team() -> Team:
    """The team that `torchrun` started this process in; a team of one without it.

    CPU tensors travel over gloo, CUDA tensors over NCCL.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Team(dist.get_rank(), size)


def leave_team() -> None:
    """Ends what `join_team` began, once everybody is done and what uses it is no more. Not for after an error."""
    if dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def local_rank() -> int:
    """This process's number on its machine, and so that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
