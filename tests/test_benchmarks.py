"""How the benchmarks measure: what is chosen, what is left out, that it is right first, and that it is all written."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
from torch import Tensor

import vae_ext
from benchmarks import (
    accuracy,
    contestants,
    figures,
    gate,
    jax_peer,
    machine,
    operators,
    results,
    run,
    scaling,
    training,
    workloads,
)
from benchmarks.models import MODELS
from benchmarks.selection import Selection, select
from benchmarks.session import Plan, Session
from benchmarks.terminal import PlainTerminal
from benchmarks.timing import Effort, Timing, interleave
from benchmarks.worker import AS_IT_COMES, PINNED, OutOfMemory, Worker
from benchmarks.workloads import DTYPES, Inputs, Workload
from tests.accuracy import worst_errors
from tests.cases import OPERATORS, case_of
from tests.commands import invoke
from vae_ext import cli, reference
from vae_ext.errors import UserError, is_out_of_memory

pytestmark = pytest.mark.cpu_only("about the benchmarks, which choose a device themselves")

ROOT = Path(__file__).resolve().parent.parent
QUICK = Plan("cpu", quick=True, input_sets=2)


class Here:
    """Stands for a worker: answers what is known, and does nothing else."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[Sequence[Any]] = []

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        self.asked.append((function.__name__, *args))
        return self.answers[function.__name__]


def session(answers: dict[str, Any], deadline: float = math.inf) -> Session:
    here: Any = Here(answers)
    return Session(PlainTerminal(), QUICK, pinned=here, as_it_comes=None, deadline=deadline)


def timed(p20: float) -> Timing:
    return Timing(p20, p20, p20, 1, (p20,))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_grid_has_every_operator_in_both_passes_and_dtypes(device: str) -> None:
    grid = workloads.suite(device, quick=False, dtypes=DTYPES)
    assert len({workload.name for workload in grid}) == len(grid)
    for operator in OPERATORS:
        found = {(w.direction, w.dtype) for w in grid if w.operator == operator}
        assert found == {(direction, dtype) for direction in ("fwd", "fwd+bwd") for dtype in DTYPES}, operator
    shapes = {workload.shape for workload in grid}
    assert {(100, 20), (65536, 128), (100, 784), (4096, 12288)} <= shapes
    assert {workload.samples for workload in grid} == {1, 8, 50}
    assert {w.operator for w in workloads.suite(device, quick=True, dtypes=DTYPES)} == {*OPERATORS, workloads.LOSS}


def test_a_selection_is_by_name_and_dtype() -> None:
    found = select("cpu", dtypes=["bfloat16"], only=r"normal_kl fwd .*x64 ")
    assert [workload.name for workload in found.operators] == ["normal_kl fwd 8192x64 bfloat16"]
    with pytest.raises(UserError, match=r"--only \( is not a regular expression"):
        select("cpu", only="(")
    with pytest.raises(UserError, match=r"--only float32 is found in none of the names, which are like bernoulli_log_"):
        select("cpu", dtypes=["bfloat16"], only="float32")


@pytest.mark.parametrize(
    ("only", "counts"),
    [
        ("normal_kl fwd 8192", {"operators": 2}),
        ("mlp M=100 ", {"training": 2}),
        ("^normal_kl bfloat16", {"accuracy": 1}),
        ("batch: .*x784", {"scaling": 8}),
        ("^threads: ", {"scaling": 16}),
        ("normal_rsample_kl.*256x64 float", {"scaling": 4}),
        ("^normal_kl .*float32", {"operators": 8, "accuracy": 1}),
        ("", {"operators": 310, "training": 16, "accuracy": 14, "scaling": 60}),
    ],
)
def test_a_selection_is_of_every_part(only: str, counts: dict[str, int]) -> None:
    found = select("cpu", only=only)
    assert {part: len(found.cells(part)) for part in results.PARTS if found.cells(part)} == counts


def test_a_selection_has_nothing_of_other_parts() -> None:
    found = select("cpu", parts=["accuracy", "scaling"], only="normal_kl|rsample_kl")
    assert not found.operators
    assert not found.training
    assert {question.operator for question in found.accuracy} == {"normal_kl", "normal_rsample_kl"}
    assert {point.workload.operator for point in found.scaling} == {"normal_rsample_kl"}


def test_what_is_measured_has_to_be_right() -> None:
    assert select("cpu", parts=["training"]).made_of() == {"normal_rsample_kl", "bernoulli_log_prob"}
    assert select("cpu", parts=["operators"], only="^normal_kl ").made_of() == {"normal_kl"}
    assert select("cpu").made_of() == set(OPERATORS)


def test_curves_are_of_float32() -> None:
    """And are not measured where its cases were not checked."""
    assert not select("cpu", dtypes=["bfloat16"]).scaling
    with pytest.raises(UserError, match=r"^--parts scaling has nothing in --dtypes bfloat16$"):
        select("cpu", parts=["scaling"], dtypes=["bfloat16"])


def test_what_matters_most_is_measured_first() -> None:
    ordered = workloads.by_importance(workloads.suite("cpu", quick=False, dtypes=DTYPES))
    kinds = [(workload.samples > 1, workload.dtype != "float32") for workload in ordered]
    assert kinds == sorted(kinds)
    foremost = itertools.takewhile(lambda workload: (workload.samples, workload.dtype) == (1, "float32"), ordered)
    assert {workload.operator for workload in foremost} == {*OPERATORS, workloads.LOSS}


def test_a_workload_beyond_the_memory_is_left_out_and_named() -> None:
    small, large = Workload("normal_kl", (100, 20), "fwd"), Workload("normal_kl", (8192, 64), "fwd")
    between = session({"available_memory": small.memory_needed(QUICK.input_sets) + 1, "measure": {"a": "row"}})
    assert list(operators.sweep(between, [large, small])) == [[{"a": "row"}]]
    assert list(between.left_out) == [large.name]
    assert "GiB of memory are needed" in between.left_out[large.name]
    here: Any = between.pinned
    assert ("measure", small, QUICK) in here.asked
    assert ("measure", large, QUICK) not in here.asked


def test_the_memory_needed_is_what_is_allocated_and_not_much_more() -> None:
    """Four sets of two inputs, and five blocks of half of what is moved beside them."""
    needed = Workload("normal_rsample_log_ratio", (65536, 128), "fwd+bwd").memory_needed(sets=4)
    tensor = 4 * 65536 * 128
    sets, yardstick, eager = 4 * 2 * tensor, 5 * 8 * tensor // 2, 8 * tensor
    assert sets + yardstick + eager < needed < 2 * (sets + yardstick + eager)


def test_memory_that_was_given_back_is_available() -> None:
    worker = Worker(PINNED, {}, threads=None)
    try:
        before = worker.run(resident_after_allocating, 2**29)
        assert before > 2**29
        worker.run(machine.available_memory, "cpu")
        assert worker.run(resident_after_allocating, 0) < before - 2**28
    finally:
        worker.close()


def resident_after_allocating(nbytes: int) -> int:
    """What this process has in memory once it has given back so much."""
    torch.ones(nbytes, dtype=torch.uint8)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_half_precision_alone_has_something_in_every_grid() -> None:
    for device, quick in itertools.product(("cpu", "cuda"), (False, True)):
        assert workloads.suite(device, quick, ["bfloat16"]), (device, quick)


def test_a_cell_without_memory_is_left_out_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(function: Callable[..., Any], *args: Any) -> Any:
        if function is machine.available_memory:
            return 2**40
        if args[0] == greedy:
            raise OutOfMemory("there was not enough memory")
        return {"of": args[0].name}

    modest, greedy = Workload("normal_kl", (100, 20), "fwd"), Workload("normal_kl", (1024, 32), "fwd")
    found = session({})
    monkeypatch.setattr(found.pinned, "run", measure)
    assert list(operators.sweep(found, [modest, greedy])) == [[{"of": modest.name}]]
    assert found.left_out == {greedy.name: "there was not enough memory"}


def test_each_row_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was left out after the last, where one interrupts or not."""
    interrupted, one = session({}), Selection(operators=[Workload("normal_kl", (100, 20), "fwd")])

    def sweep(found: Session, _workloads: object) -> Iterator[list[dict[str, Any]]]:
        yield [{"first": 1}]
        yield [{"first": 1}, {"second": 2}]
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_expect_quiet", lambda *_: None)
    monkeypatch.setattr(run, "pass_gate", lambda *_: 1)
    monkeypatch.setattr(run, "_header", lambda *_: {"format": results.FORMAT})
    monkeypatch.setattr(Session, "pids", lambda _: [os.getpid()])
    monkeypatch.setattr(operators, "sweep", sweep)
    with pytest.raises(KeyboardInterrupt):
        run._measure(interrupted, run.Options(parts=("operators",), out=tmp_path), one)
    assert results.read(tmp_path / results.FILE_NAME)["operators"] == [{"first": 1}, {"second": 2}]
    late = session({}, deadline=0.0)
    monkeypatch.setattr(operators, "sweep", lambda found, _: iter(found.each("operators", {"a": []})))
    run._measure(late, run.Options(parts=("operators",), out=tmp_path), one)
    assert results.read(tmp_path / results.FILE_NAME)["left_out"] == {"a": "the time was up"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_a_want_of_memory_is_told_from_other_faults(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_worker_says_what_memory_was_wanted() -> None:
    worker = Worker(AS_IT_COMES, {}, threads=None)
    try:
        with pytest.raises(OutOfMemory, match=r"RuntimeError: .*can't allocate memory"):
            worker.run(torch.ones, 2**46)
    finally:
        worker.close()


def test_nothing_is_begun_after_the_deadline() -> None:
    late = session({}, deadline=0.0)
    assert list(late.each("operators", {"a": 1, "b": 2})) == []
    assert late.left_out == {"a": "the time was up", "b": "the time was up"}


def test_a_step_that_would_take_too_much_is_told_from_a_smaller_one() -> None:
    smaller = {
        "batch": 100,
        "peak_bytes": {"eager": 10**6, "ours": 5 * 10**5},
        "timings": {"eager": {"median": 2e4}, "ours": {"median": 1e4}},
    }
    step = training.Step("mlp", 10_000, "float32")
    assert training.too_much(step, smaller, available=10**9) is None
    assert "GiB of memory" in str(training.too_much(step, smaller, available=10**8))
    slow = smaller | {"timings": {"eager": {"median": 1e6}}}
    assert "would take about 100 s" in str(training.too_much(step, slow, available=10**9))


def test_training_leaves_out_what_a_smaller_minibatch_foretells() -> None:
    row = {"batch": 100, "peak_bytes": {"eager": 10**6}, "timings": {"eager": {"median": 1e5}}}
    cells = [training.Step("mlp", batch, "float32") for batch in (100, 200, 20_000)]
    found = session({"available_memory": 10**9, "measure": row})
    assert list(training.train(found, cells))[-1] == [row, row]
    assert list(found.left_out) == ["mlp M=20000 float32"]


@pytest.mark.parametrize("model", ["mlp", "convolutional"])
def test_a_step_that_is_wired_wrongly_is_not_measured(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = MODELS[model]
    x = torch.rand(8, *kind.event_shape)
    training.expect_same_gradients(model, kind.make(), x)
    right = vae_ext.normal_rsample_kl

    def without_kl(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        z, kl = right(*args, **kwargs)
        return z, 0 * kl

    monkeypatch.setattr(vae_ext, "normal_rsample_kl", without_kl)
    with pytest.raises(UserError, match="gradients of ours are not those of eager"):
        training.expect_same_gradients(model, kind.make(), x)


@pytest.mark.parametrize("model", MODELS)
def test_contestants_take_the_same_step(model: str) -> None:
    """What is different is the noise alone; a loss that is off is an error."""
    measured = training.time_alone(training.Step(model, 4, "float32"), QUICK)
    assert measured["timings"].keys() == {"eager", "ours"}
    with pytest.raises(UserError, match=r"the loss of ours is 90 nats, expected about 100"):
        training.expect_alike("mlp", {"eager": 100.0, "ours": 90.0})


def test_inputs_take_turns() -> None:
    inputs = Inputs(Workload("normal_kl", (3, 2), "fwd"), "cpu", sets=2)
    seen: list[Tensor] = []

    def operator(mean: Tensor, log_var: Tensor) -> Tensor:
        seen.append(mean)
        return log_var

    call = inputs.call(operator)
    for _ in range(3):
        call()
    assert seen[0] is seen[2]
    assert not torch.equal(seen[0], seen[1])


def test_inputs_beyond_any_cache_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload("bernoulli_log_prob", (3, 2), "fwd+bwd", samples=5)
    assert len(Inputs(workload, "cpu", sets=4).sets) == 4
    monkeypatch.setattr(workloads, "_BEYOND_ANY_CACHE", 8)
    (arguments,) = Inputs(workload, "cpu", sets=4).sets
    assert {name: tuple(tensor.shape) for name, tensor in arguments.items()} == {"logits": (5, 3, 2), "x": (3, 2)}


def test_large_arguments_repeat_the_rows_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "_ELEMENTS_DRAWN", 12)
    (arguments,) = Inputs(Workload("bernoulli_log_prob", (5, 2), "fwd", samples=3), "cpu", sets=1).sets
    logits = arguments["logits"]
    assert logits.shape == (3, 5, 2)
    assert torch.equal(logits[:, 2:4], logits[:, :2])
    assert not torch.equal(logits[:, 1], logits[:, 0])


def test_the_loss_is_that_of_eager() -> None:
    inputs = Inputs(Workload(workloads.LOSS, (4, 25), "fwd+bwd"), "cpu", 1)
    ours, eager = (inputs.call(workloads.operator_of(module, workloads.LOSS))() for module in (vae_ext, reference))
    assert [tensor.shape for tensor in ours] == [(4, 20), (4, 20), (4, 25)]
    # The others depend on the noise.
    torch.testing.assert_close(ours[2], eager[2])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("direction", ["fwd", "fwd+bwd"])
@pytest.mark.parametrize("samples", [1, 3])
def test_ours_and_eager_compute_the_same_things(operator: str, direction: Any, samples: int) -> None:
    inputs = Inputs(Workload(operator, (4, 5), direction, samples=1 if operator == "normal_kl" else samples), "cpu", 1)
    ours, eager = (inputs.call(workloads.operator_of(module, operator))() for module in (vae_ext, reference))
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in eager]
    if operator in workloads.LIKELIHOODS:
        torch.testing.assert_close(ours, eager)


def test_sizes_are_the_least_that_a_pass_moves() -> None:
    floats = 4 * 3 * 4
    fwd = Inputs(Workload("bernoulli_log_prob", (4, 3), "fwd"), "cpu", 1)
    assert fwd.sizes(vae_ext.bernoulli_log_prob) == workloads.Sizes(moved=2 * floats, new=16)
    both = Inputs(Workload("bernoulli_log_prob", (4, 3), "fwd+bwd"), "cpu", 1)
    moved = (2 * floats + 16) + (2 * floats + 16 + floats)
    assert both.sizes(vae_ext.bernoulli_log_prob) == workloads.Sizes(moved=moved, new=16 + floats)


def test_jax_is_a_contestant_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a formula for every operator; where it is not installed nothing asks for it."""
    assert set(jax_peer.FORMULAS) == set(OPERATORS)
    inputs = Inputs(Workload("normal_kl", (3, 2), "fwd"), "cpu", sets=1)
    monkeypatch.setattr(jax_peer, "installed", lambda: False)
    assert list(contestants.contestants(inputs, "cpu")) == ["ours", "eager", "compile"]
    monkeypatch.setattr(jax_peer, "installed", lambda: True)
    monkeypatch.setattr(jax_peer, "call", lambda inputs: lambda: ())
    assert list(contestants.contestants(inputs, "cpu")) == ["ours", "eager", "compile", "jax"]


def test_a_jax_that_does_not_work_is_a_peer_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_peer, "installed", lambda: True)
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setattr(contestants, "compiled", lambda operator: operator)
    monkeypatch.setattr(operators, "wake_compiler", lambda device: None)
    measured = operators.time_alone(Workload("normal_kl", (3, 2), "fwd+bwd"), QUICK)
    assert measured["timings"].keys() == {"ours", "eager", "compile"}
    assert measured["failed"] == {"jax": "ModuleNotFoundError: import of jax halted; None in sys.modules"}


def test_a_peer_that_fails_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> object:
        raise TypeError("no such thing\nand more")

    calls = {"ours": lambda: torch.ones(1), "eager": lambda: torch.ones(1), "jax": fail}
    monkeypatch.setattr(operators, "contestants", lambda inputs, device: dict(calls))
    measured = operators.time_alone(Workload("normal_kl", (3, 2), "fwd"), QUICK)
    assert measured["failed"] == {"jax": "TypeError: no such thing"}
    assert measured["timings"].keys() == {"ours", "eager"}


def test_the_bound_is_the_call_and_the_work_or_the_memory() -> None:
    workload = Workload("normal_kl", (8192, 64), "fwd")  # 64 times what one core does alone
    limits = {"call": timed(2.0), "core": timed(5.0)}
    assert operators.bound(workload, limits, threads=2) == pytest.approx(2 + 3 * 64 / 2)
    assert operators.bound(workload, limits | {"memory": timed(500.0)}, threads=2) == pytest.approx(502)
    assert operators.bound(Workload("normal_kl", (100, 20), "fwd"), limits, threads=2) == 2.0
    assert operators.bound(workload, {"memory": timed(500.0)}, threads=2) is None


def test_every_round_times_every_call() -> None:
    counts = {"a": 0, "b": 0}

    def call(name: str) -> Callable[[], object]:
        def count() -> None:
            counts[name] += 1

        return count

    timings, _ = interleave({name: call(name) for name in counts}, Effort(seconds=0, rounds=5))
    assert all(len(timing.samples) == 5 and timing.p20 <= timing.median <= timing.p80 for timing in timings.values())
    assert all(counts[name] > 3 * timings[name].calls_per_sample for name in counts)


def test_what_a_call_is_to_find_is_set_up_before_each_sample() -> None:
    state, seen = {"is": ""}, []

    def prepare(name: str) -> None:
        state["is"] = name

    calls = {name: lambda name=name: seen.append((name, state["is"])) for name in ("a", "b")}
    interleave(calls, Effort(seconds=0, rounds=5), prepare)
    assert set(seen) == {("a", "a"), ("b", "b")}


def test_numbers_of_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two threads are timed in the same rounds, each with as many as it says."""
    now, seen = [7], []
    monkeypatch.setattr(torch, "set_num_threads", lambda count: now.append(count))
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])

    def operator(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(now[-1])
        return mean, log_var

    monkeypatch.setattr(scaling, "operator_of", lambda *_: operator)
    point = scaling.Point("threads", Workload("normal_rsample_kl", (2, 3), "fwd"), (1, 2))
    one, two = scaling.measure(point, QUICK)
    assert (one["threads"], two["threads"], now[-1]) == (1, 2, 7)
    assert set(seen) == {1, 2}
    assert len(one["timings"]["ours"]["samples"]) == len(two["timings"]["eager"]["samples"])
    changes = sum(before != after for before, after in itertools.pairwise(now))
    assert changes > len(one["timings"]["ours"]["samples"])


def test_slow_calls_have_fewer_rounds() -> None:
    effort = Effort(seconds=1, rounds=12, limit=5)
    assert effort.wants(4, 99)
    assert not effort.wants(5, 99)
    assert effort.wants(11, 4.9)
    assert not effort.wants(12, 4.9)
    assert effort.wants(12, 0.9)


def test_the_gate_stops_at_a_wrong_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("normal_kl", (3, 4))
    gate.check(case, "float32", "cpu")
    right = vae_ext.normal_kl
    monkeypatch.setattr(vae_ext, "normal_kl", lambda **kwargs: right(**kwargs) * 1.001)
    with pytest.raises(UserError, match=r"nothing was measured, because normal_kl-mean=3x4.* is wrong in float32"):
        gate.check(case, "float32", "cpu")


def test_the_gate_is_the_registry_of_the_tests() -> None:
    everything = gate.cases(OPERATORS, quick=False)
    assert {case.operator for case in everything} == set(OPERATORS)
    assert 400 < len(gate.cases(OPERATORS, quick=True)) < len(everything)
    assert {case.operator for case in gate.cases(["normal_kl"], quick=True)} == {"normal_kl"}


@pytest.mark.parametrize("operator", OPERATORS)
def test_ours_is_accurate_in_the_accuracy_table(operator: str) -> None:
    rows = accuracy.measure(accuracy.Question(operator, "float32"), QUICK)
    assert [row["values"] for row in rows] == list(accuracy.kinds_of_values(operator))
    for row in rows:
        assert row["output"].keys() == {"ours", "eager"}
        assert row["output"]["ours"] < 1e-6
        assert row["gradient"]["ours"] < 1e-6


def test_an_error_is_relative_to_the_terms() -> None:
    case = case_of("bernoulli_log_prob", (3, 4))
    kwargs = case.make(requires_grad=True)

    def off() -> Tensor:
        return vae_ext.bernoulli_log_prob(**kwargs) * 1.01

    def nowhere() -> Tensor:
        return vae_ext.bernoulli_log_prob(**kwargs) * math.nan

    errors = worst_errors(case, kwargs, {"off": off, "nowhere": nowhere})
    output, gradient = errors["off"]
    assert 1e-3 < output <= 0.01 + 1e-6
    assert 1e-3 < gradient <= 0.01 + 1e-6
    assert errors["nowhere"] == (math.inf, math.inf)


def test_a_worker_has_the_allocator_it_is_given() -> None:
    before = dict(os.environ)
    for allocator in (PINNED, AS_IT_COMES):
        worker = Worker(allocator, {"VAE_EXT_TEST": "1"}, threads=None)
        try:
            assert worker.pid != os.getpid()
            assert worker.run(os.getenv, "VAE_EXT_TEST") == "1"
            assert {name: worker.run(os.getenv, name) for name in PINNED} == dict.fromkeys(PINNED) | allocator
            with pytest.raises(ValueError, match="invalid literal"):
                worker.run(int, "no number")
            with pytest.raises(OutOfMemory, match="want of memory"):
                worker.run(os._exit, 1)
            assert worker.run(os.getpid) == worker.pid
            assert worker.run(os.getenv, "VAE_EXT_TEST") == "1"
            assert {name: worker.run(os.getenv, name) for name in PINNED} == dict.fromkeys(PINNED) | allocator
        finally:
            worker.close()
    assert dict(os.environ) == before


def test_the_load_of_others_is_not_our_own() -> None:
    start = monotonic()
    load = machine.OtherLoad(lambda: [os.getpid()])
    everything = machine.OtherLoad(list)
    end = os.times().user + 0.3
    while os.times().user < end:
        pass
    ours = everything.cores() - load.cores()
    assert ours * (monotonic() - start) > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "operators,speed"], "--parts has 'speed', expected some of operators, training"),
        (["--dtypes", "float64"], "--dtypes has 'float64', expected some of float32, bfloat16"),
        (["--only", "nothing like this"], "--only nothing like this is found in none of"),
        (["--only", "nothing like this", "--parts", "training"], "are like mlp M=100 float32 (training)"),
        (["--device", "tpu"], "--device is 'tpu', expected cpu or cuda"),
    ],
)
def test_an_unusable_option_is_one_sentence(options: list[str], message: str) -> None:
    result = invoke("benchmark", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_installation_without_a_clone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "vae_ext" / "cli.py"))
    result = invoke("benchmark", "--quick")
    assert result.exit_code == 1
    assert result.stderr.startswith("vae-ext: benchmark needs a clone of the repository")
    assert result.stderr.count("\n") == 1


def test_a_run_leaves_results_and_pictures(tmp_path: Path) -> None:
    """The whole command on one operator, and one that is measured in parts."""
    options = ["--quick", "--force", "--device", "cpu", "--dtypes", "float32", "--parts", "operators,accuracy"]
    done = subprocess.run(
        [sys.executable, "-m", "vae_ext", "benchmark", *options, "--only", "normal_kl", "--out", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = results.read(tmp_path / results.FILE_NAME)
    (row,) = document["operators"]
    assert results.operator_name(row) == Workload("normal_kl", (1024, 32), "fwd+bwd").name
    assert row["timings"].keys() == {"ours", "eager", "compile"} | ({"jax"} if jax_peer.installed() else set())
    assert row["default_allocator"]["timings"].keys() == row["timings"].keys()
    assert row["peak_bytes"]["ours"] < row["peak_bytes"]["eager"]
    assert row["compile_seconds"]["compile"] > 0
    assert len(row["timings"]["ours"]["samples"]) >= 8
    # Every small case of the operator, and none of the others.
    assert document["cases_right"] == len(gate.cases(["normal_kl"], quick=True)) > 50
    assert not document["training"]
    assert {"cpu", "isa", "torch", "commit", "compiler"} <= document["machine"].keys()
    assert {path.name for path in tmp_path.iterdir()} == {results.FILE_NAME, "speed.png", "accuracy.png"}
    assert "A quick look: not to be quoted." in done.stdout
    assert figures.SOURCE.encode() in (tmp_path / "speed.png").read_bytes()


def test_the_reports_know_every_contestant() -> None:
    assert tuple(training.CONTESTANTS) == results.STEPS
    assert {*results.PEERS, *results.STEPS} <= figures._COLOURS.keys()
