"""What is made of a results.json: comparison, summary, tables, pictures, the README."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks import (
    compare,
    figures,
    groups,
    losses,
    machine,
    overview,
    readme,
    report,
    results,
    summary,
    tables,
    terminal,
)
from benchmarks.timing import summarise
from tests.commands import invoke
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("about files")

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = sorted((ROOT / "benchmarks" / "results").glob("*/results.json"))


def timing(median: float, spread: float = 1.01) -> dict[str, Any]:
    """A timing whose 20th and 80th percentiles are off its median by a factor."""
    return {
        "p20": median / spread,
        "median": median,
        "p80": median * spread,
        "calls_per_sample": 1,
        "samples": [median / spread] * 12,
    }


def operator_row(ours: float = 10.0, eager: float = 80.0, compiled: float = 40.0, **fields: Any) -> dict[str, Any]:
    timings = {"ours": timing(ours), "eager": timing(eager), "compile": timing(compiled)}
    return {
        "operator": "bernoulli_log_prob",
        "pass": "fwd+bwd",
        "shape": [8192, 784],
        "samples": 1,
        "dtype": "float32",
        "timings": timings,
        "default_allocator": {
            "timings": {**timings, "eager": timing(9 * eager)},
            "page_faults_per_round": 1e4,
            "failed": {},
        },
        "limits": {"memory": 9.0, "torch": 1.0, "call": 2.0, "core": 3.0},
        "bound": 9.0,
        "compile_seconds": {"compile": 1.5},
        "peak_bytes": {"ours": 1000, "eager": 4000, "compile": 1000},
        "bytes_moved": 128_000_000,
        "bytes_of_results": 1000,
        "input_sets": 4,
        "page_faults_per_round": 0.0,
        "failed": {},
    } | fields


def step_row(**fields: Any) -> dict[str, Any]:
    speeds = {"eager": 5000.0, "compile": 6000.0, "ours": 4000.0, "ours+compile": 3000.0}
    return {
        "model": "mlp",
        "batch": 100,
        "dtype": "float32",
        "timings": {name: timing(time) for name, time in speeds.items()},
        "compile_seconds": {"compile": 4.0, "ours+compile": 3.0},
        "peak_bytes": dict.fromkeys(speeds, 10**6),
        "page_faults_per_round": 0.0,
        "failed": {},
    } | fields


def document(**parts: Any) -> dict[str, Any]:
    """A whole results.json, with some parts in place of the usual ones."""
    accuracy = {
        "operator": "normal_kl",
        "dtype": "float32",
        "values": "extreme",
        "output": {"ours": 0.0, "eager": 1e-7},
        "gradient": {"ours": 2e-7, "eager": None},
    }
    point = {
        "operator": "normal_rsample_kl",
        "shape": [4, 64],
        "samples": 1,
        "timings": {"ours": timing(5), "eager": timing(9)},
    }
    return {
        "format": results.FORMAT,
        "machine": {
            "cpu": "a CPU",
            "cores": 2,
            "threads": 2,
            "isa": "AVX512",
            "torch": "2.13.0",
            "vae_ext": "0.1.0",
            "commit": "0123456789abcdef",
            "compiler": "GNU 12",
        },
        "settings": {"device": "cpu", "quick": False},
        "cases_right": 7,
        "bandwidth_bytes_per_second": {"read": 5e10, "copy": 4e10},
        "seconds": {"operators": 9.0},
        "operators": [operator_row(), operator_row(shape=[100, 784], bytes_moved=10**6)],
        "training": [step_row()],
        "accuracy": [accuracy],
        "scaling": [
            point | {"axis": "batch", "value": 4, "threads": 2},
            point | {"axis": "threads", "value": 4, "threads": 1},
            point | {"axis": "threads", "value": 4, "threads": 2},
        ],
        "cores_busy_with_others": 0.0,
        "left_out": {"mlp M=16384 float32": "the time was up"},
    } | parts


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = document()
    assert results.read(results.write(written, tmp_path)) == written
    assert len((tmp_path / results.FILE_NAME).read_text().splitlines()) == len(written) + 2 + 3 + 2 + 2 + 4


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', "{}"])
def test_another_file_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        results.read(path)


@pytest.mark.parametrize(
    ("ours", "peers", "verdict"),
    [
        (1.0, 1.0, ""),
        (1.04, 1.0, ""),  # below what any two runs differ by
        (0.8, 1.0, "faster"),
        (1.25, 1.0, "slower"),
        (1.25, 1.25, ""),  # a slower machine
        (1.0, 0.7, "slower"),  # a faster machine, of which ours has nothing
        (1.0, 1.25, "faster"),
        (0.8, 1.25, "faster"),
    ],
)
def test_a_change_is_told_from_the_machine(ours: float, peers: float, verdict: str) -> None:
    before = document(training=[])
    after = document(training=[], operators=[operator_row(10 * ours, 80 * peers, 40 * peers)])
    (change,) = compare.changes(before, after)
    assert change.verdict == verdict
    assert change.own == pytest.approx(ours / peers)


def noisy(median: float, seed: int, rounds: int = 40, noise: float = 0.2) -> dict[str, Any]:
    """As the machine does it: seldom faster, at times much slower."""
    draws = np.random.default_rng(seed).exponential(noise, rounds)
    return dataclasses.asdict(summarise(list(median * (1 + draws)), 1))


def with_timings(seed: int, ours: float, noise: float, rounds: int = 40) -> dict[str, Any]:
    row = operator_row()
    for index, (name, median) in enumerate({"ours": ours, "eager": 80.0, "compile": 40.0}.items()):
        row["timings"][name] = noisy(median, seed + index, rounds, noise)
    return document(operators=[row], training=[])


@pytest.mark.parametrize("seed", range(0, 40, 10))
def test_wide_samples_do_not_hide_a_change_of_a_third(seed: int) -> None:
    """What counts is how far the percentile may be off, not how far single samples are."""
    (change,) = compare.changes(with_timings(seed, 10.0, noise=0.5), with_timings(seed + 100, 13.3, noise=0.5))
    assert change.verdict == "slower"
    assert change.interval[0] < 1.33 < change.interval[1]


def test_what_chance_explains_is_no_change() -> None:
    pairs = [(with_timings(seed, 10.0, 0.5), with_timings(seed + 5000, 10.0, 0.5)) for seed in range(0, 400, 10)]
    verdicts = [change.verdict for pair in pairs for change in compare.changes(*pair)]
    assert verdicts.count("") >= len(verdicts) - 3


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("rounds", [4, 5, 7, 12])
def test_few_rounds_do_not_raise_false_alarms(rounds: int, noise: float) -> None:
    """As few as rows of a run have."""
    seeds = range(0, 2000, 10)
    alarms = 0
    for seed in seeds:
        before, after = with_timings(seed, 10.0, noise, rounds), with_timings(seed + 5000, 10.0, noise, rounds)
        alarms += sum(change.verdict != "" for change in compare.changes(before, after))
    assert alarms <= 0.01 * len(seeds)


@pytest.mark.parametrize("rounds", [5, 7, 12])
def test_few_rounds_do_not_hide_that_something_takes_twice_as_long(rounds: int) -> None:
    found = [
        compare.changes(with_timings(seed, 10.0, 0.1, rounds), with_timings(seed + 5000, 20.0, 0.1, rounds))[0].verdict
        for seed in range(0, 200, 10)
    ]
    assert found.count("slower") >= 19


@pytest.mark.parametrize("few", [0, 4])
@pytest.mark.parametrize("earlier", [True, False])
def test_fewer_than_five_rounds_on_either_side_are_never_called(few: int, earlier: bool) -> None:
    """However many the other has, and none if all that is left of them are percentiles."""
    files = with_timings(0, 10.0, 0.1), with_timings(5000, 20.0, 0.1)
    assert compare.changes(*files)[0].verdict == "slower"
    for timing_of_few in files[not earlier]["operators"][0]["timings"].values():
        timing_of_few["samples"] = timing_of_few["samples"][:few]
    assert compare.changes(*files)[0].verdict == ""


def test_unequal_counts_of_five_and_more_can_be_called() -> None:
    few, many = with_timings(0, 10.0, 0.1, rounds=5), with_timings(5000, 20.0, 0.1, rounds=12)
    assert compare.changes(few, many)[0].verdict == "slower"
    assert compare.changes(many, few)[0].verdict == "faster"


def test_the_noise_of_peers_counts() -> None:
    steady = with_timings(0, 10.0, noise=0.001)
    shaky = with_timings(0, 10.0, noise=0.001)
    for index, peer in enumerate(("eager", "compile")):
        shaky["operators"][0]["timings"][peer] = noisy(80.0, index, noise=1.0)
    widths = [high / low for low, high in (compare.changes(steady, file)[0].interval for file in (steady, shaky))]
    assert widths[0] < 1.01
    assert widths[1] > 1.1


def test_without_samples_chance_is_what_the_percentiles_leave() -> None:
    before, after = document(training=[]), document(training=[])
    for file in (before, after):
        for row in file["operators"]:
            for name, spread in (("ours", 1.2), ("eager", 1.01), ("compile", 1.01)):
                row["timings"][name] = timing(10.0, spread) | {"samples": []}
    low, high = compare.changes(before, after)[0].interval
    assert low < 1 / 1.2 < 1.2 < high


def test_every_way_of_ours_is_compared() -> None:
    slow, greedy = step_row(), operator_row()
    slow["timings"]["ours+compile"] = timing(90_000)
    greedy["peak_bytes"] = greedy["peak_bytes"] | {"ours": 100_000}
    wrong = document()["accuracy"][0] | {"gradient": {"ours": None, "eager": 1e-7}}
    before, after = document(), document(training=[slow], operators=[greedy], accuracy=[wrong])
    verdicts = {change.name: change.verdict for change in compare.changes(before, after)}
    assert verdicts["mlp M=100 float32 ours+compile"] == "slower"
    assert verdicts["mlp M=100 float32"] == ""
    assert compare.other_changes(before, after) == [
        "peak MB of ours, bernoulli_log_prob fwd+bwd 8192x784 float32: more, 0.00 before, 0.10 after",
        "error of ours, normal_kl float32, extreme inputs, gradients: more, 2.0e-07 before, not finite after",
    ]
    assert compare.other_changes(before, before) == []


def test_rows_are_compared_by_name() -> None:
    before = document(operators=[operator_row(ours=10), operator_row(ours=7, dtype="bfloat16")])
    after = document(operators=[operator_row(ours=30, samples=8), operator_row(ours=20)])
    operator, step, compiled = compare.changes(before, after)
    assert (operator.name, operator.ratio) == ("bernoulli_log_prob fwd+bwd 8192x784 float32", 2.0)
    assert (step.name, step.ratio, step.verdict) == ("mlp M=100 float32", 1.0, "")
    assert (compiled.name, compiled.ratio) == ("mlp M=100 float32 ours+compile", 1.0)
    assert compare.only_in_one(before, after) == (
        ["bernoulli_log_prob fwd+bwd 8192x784 bfloat16"],
        ["bernoulli_log_prob fwd+bwd 8192x784 L=8 float32"],
    )
    assert "1 are faster" not in compare.verdicts([operator, step])
    assert "1 slower" in compare.verdicts([operator, step])


def test_the_command_compares_two_files(tmp_path: Path) -> None:
    after = document(operators=[operator_row(ours=5)])
    after["machine"] = after["machine"] | {"torch": "2.14.0"}
    paths = []
    for name, file in (("before", document()), ("after", after)):
        (tmp_path / name).mkdir()
        paths.append(str(results.write(file, tmp_path / name)))
    result = invoke("benchmark", "--compare", *paths)
    assert result.exit_code == 0, result.output
    assert re.search(r"8192x784 float32 +faster +9\.9 +5\.0 +0\.50 +1\.00 +0\.50 +0\.50 to 0\.50", result.output)
    assert "torch: 2.13.0 before, 2.14.0 after" in result.output
    assert f"Only in {paths[0]}: bernoulli_log_prob fwd+bwd 100x784 float32" in " ".join(result.output.split())


def test_files_without_a_common_row_are_refused(tmp_path: Path) -> None:
    empty = document(operators=[], training=[])
    path = str(results.write(empty, tmp_path))
    result = invoke("benchmark", "--compare", path, path)
    assert result.exit_code == 1
    assert "no row in common" in result.stderr


@pytest.mark.parametrize("kind", [terminal.PlainTerminal, lambda: terminal.RichTerminal(Console())])
def test_the_report_says_it_all_with_rich_and_without(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(operators=[operator_row(compiled=5)], left_out={"normal_kl": "the time was up"})
    report.show(found, kind())
    said = capsys.readouterr().out
    for words in (
        "bernoulli_log_prob",
        "Left out: normal_kl: the time was up.",
        "✗ times as fast",
        "Where a peer is faster than ours",
    ):
        assert words in said


def test_without_rich_lines_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(terminal.terminal(), terminal.PlainTerminal)


def test_the_summary_finds_means_and_extremes() -> None:
    rows = [
        operator_row(ours=10, eager=20, compiled=80),
        operator_row(ours=10, eager=80, compiled=20, limits={"memory": 4.0}),
        operator_row(ours=16, dtype="bfloat16"),
        operator_row(ours=100, shape=[1024, 784], limits={}) | {"pass": "fwd"},
    ]
    steps = [step_row(), step_row(batch=8192, dtype="bfloat16")]
    found = {(line.what, line.where): line for line in summary.lines(document(operators=rows, training=steps))}
    assert found["times as fast as eager, fwd+bwd, float32, geometric mean of 2", ""].reached == pytest.approx(4)
    bandwidth = found[
        "least share of the copy bandwidth beyond the caches", "bernoulli_log_prob fwd+bwd 8192x784 float32"
    ]
    assert bandwidth.reached == pytest.approx(0.4 * 1.01)
    assert bandwidth.missed
    half = found["least speed of bfloat16 over float32", "bernoulli_log_prob fwd+bwd 8192x784 bfloat16"]
    assert half.reached == pytest.approx(10 / 16)
    cached = found["ns an element in the caches", "bernoulli_log_prob fwd 1024x784 float32"]
    assert cached.missed
    assert "at most 0.09" in str(cached)
    assert not found["training: speed of ours over eager", "mlp M=8192 bfloat16"].missed


def test_what_is_written_is_in_no_share_of_reading() -> None:
    fields: dict[str, Any] = {"pass": "fwd", "bytes_moved": 80_000_000, "bytes_of_results": 40_000_000}
    sampler, likelihood = operator_row(**fields), operator_row(**fields | {"bytes_of_results": 10_000})
    assert results.share_of_memory(sampler, "cpu") is None
    # There memory is timed by copying, and the bytes are all that are moved.
    assert results.share_of_memory(sampler, "cuda") == results.share_of_memory(likelihood, "cpu")
    assert results.share_of_memory(likelihood, "cpu") == pytest.approx(0.9 * 1.01)
    assert results.share_of_memory(operator_row(bytes_of_results=40_000_000), "cpu") == pytest.approx(0.9 * 1.01)


def test_with_the_default_allocator_the_median_counts() -> None:
    row = operator_row()
    row["default_allocator"]["timings"]["ours"] = timing(20, spread=4)
    cells = dict(zip(tables.speed([row]).headings, tables.speed([row]).rows[0], strict=True))
    assert cells["default: ours"] == "20.0"
    assert not losses.slower(document(operators=[row], training=[])).rows
    row["default_allocator"]["timings"]["compile"] = timing(19)
    (loss,) = losses.slower(document(operators=[row], training=[])).rows
    assert loss[1:] == ["default", "ours", "compile", "0.950", "within chance"]


def test_operators_have_means_by_kind_and_group() -> None:
    rows = [
        operator_row(ours=10, eager=40),
        operator_row(ours=10, eager=10, shape=[100, 784]),
        operator_row(ours=10, eager=30, samples=8),
        operator_row(ours=10, eager=70, dtype="bfloat16"),
        operator_row(operator="normal_rsample", ours=10, eager=90),
        operator_row(operator="normal_kl", ours=10, eager=250),
        operator_row(operator="loss", ours=10, eager=1000),
    ]
    table = groups.speeds(rows)
    found = {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}
    assert found["bernoulli_log_prob"]["f32: × eager"] == "2.0 (1.0)"
    assert found["bernoulli_log_prob"]["f32, L > 1: × eager"] == "3.0 (3.0)"
    assert found["bernoulli_log_prob"]["bf16: × eager"] == "7.0 (7.0)"
    assert found["samplers"]["f32: × eager"] == "9.0 (9.0)"
    assert found["likelihoods and KL"]["f32: × eager"] == "4.6 (1.0)"
    assert found["loss"]["f32, L > 1: × eager"] == ""
    assert not any("bf16, L > 1" in heading for heading in table.headings)


def test_shares_of_memory_have_extremes_by_group() -> None:
    rows = [
        operator_row(ours=10, limits={"memory": 4.0}),
        operator_row(ours=10, limits={"memory": 9.0}),
        operator_row(ours=10, limits={"memory": 1.0}, samples=8),
        operator_row(ours=10, limits={"memory": 2.0}, operator="normal_rsample"),
        operator_row(ours=10, limits={"memory": 3.0}, bytes_moved=10**6),
        operator_row(ours=10, limits={}),
    ]
    assert groups.shares(document(operators=rows)).rows == [
        ["samplers", "fwd+bwd", "1", "1", "20%", "20%"],
        ["likelihoods and KL", "fwd+bwd", "1", "2", "40%", "91%"],
        ["likelihoods and KL", "fwd+bwd", "8", "1", "10%", "10%"],
    ]


def test_the_summary_has_the_least_speed_of_whole_steps_by_rival_and_allocator() -> None:
    fast, slow = step_row(), step_row(batch=1024)
    slow["timings"] = {name: timing(time) for name, time in {"eager": 90, "compile": 80, "ours": 100}.items()}
    slow["default_allocator"] = {"timings": {"eager": timing(96, spread=2), "ours": timing(100)}}
    lines = summary.lines(document(training=[fast, slow]))
    prefix = "training: least speed of "
    found = {line.what.removeprefix(prefix): line for line in lines if line.what.startswith(prefix)}
    assert {what: (line.value, line.where, line.missed) for what, line in found.items()} == {
        "ours over eager, pinned allocator": ("0.90", "mlp M=1024 float32", True),
        "ours over compile, pinned allocator": ("0.80", "mlp M=1024 float32", True),
        "ours+compile over eager, pinned allocator": ("1.67", "mlp M=100 float32", False),
        "ours+compile over compile, pinned allocator": ("2.00", "mlp M=100 float32", False),
        "ours over eager, default allocator": ("0.96", "mlp M=1024 float32", True),
    }


def test_the_summary_counts_what_tells_of_a_machine_that_was_not_quiet() -> None:
    wide = operator_row(page_faults_per_round=101.0)
    wide["timings"]["ours"] = timing(10, spread=1.3)
    rows = [wide, operator_row(dtype="bfloat16", ours=5), operator_row(shape=[3, 4], ours=4, bound=2.0)]
    rows += [operator_row(shape=[3, 4], ours=5, dtype="bfloat16")]
    found = {str(line) for line in summary.lines(document(operators=rows, training=[step_row()]))}
    assert {
        "rows of operators whose p80 is beyond 1.5 × p20, of 4: 1",
        "rows of training whose p80 is beyond 1.5 × p20, of 1: 0",
        "rows of operators with more than 100 page faults a round, of 4: 1",
        "most page faults a round of all contestants: 101, bernoulli_log_prob fwd+bwd 8192x784 float32",
        "rows of bfloat16 that are slower than in float32, of 2: 1",
    } <= found


def test_the_bound_tells_what_could_be_gained() -> None:
    """A row that is faster than its bound stays as it is."""
    rows = [operator_row(ours=10.1, eager=40.4, bound=5.0), operator_row(ours=10.1, eager=40.4, bound=20.0)]
    rows.append(operator_row(bound=None, eager=1.0))
    found = {line.what: line for line in summary.lines(document(operators=rows))}
    what = "times as fast as eager, fwd+bwd, float32, geometric mean of 2 of one sample"
    assert found[what].reached == pytest.approx(4.0)
    assert found[f"{what}, were each at its bound"].reached == pytest.approx((8.0 * 4.0) ** 0.5)


def test_a_gpu_has_aims_of_its_own() -> None:
    rows = [
        operator_row(eager=20),
        operator_row(operator="normal_rsample"),
        operator_row(operator="loss", eager=49, limits={}),
    ]
    found = document(operators=rows, training=[])
    lines = [line for line in summary.lines(found | {"settings": found["settings"] | {"device": "cuda"}}) if line.aim]
    assert [line.missed for line in lines] == [True, False, True, False, False]
    assert [line.aim for line in lines] == [3.0, 1.0, 5.0, 0.85, 0.75]


@pytest.mark.parametrize("other", [{"isa": "AVX2"}, {"cores": 4}])
def test_an_aim_is_for_the_machine_it_is_about(other: dict[str, Any]) -> None:
    there = document(training=[])
    elsewhere = there | {"machine": there["machine"] | other}
    assert any(line.aim for line in summary.lines(there))
    assert not any(line.aim for line in summary.lines(elsewhere))


def test_a_large_machine_may_do_a_little_else() -> None:
    assert machine.quiet_cores(2) == 0.15
    assert machine.quiet_cores(192) == pytest.approx(5.76)


def test_a_page_tells_that_sources_were_changed() -> None:
    file = document()
    for commit, said in (("0123456789abcdef-dirty", "0123456789ab-dirty;"), ("0123456789abcdef", "0123456789ab;")):
        assert said in readme.page(file | {"machine": file["machine"] | {"commit": commit}})


def test_every_row_in_which_a_peer_is_faster_is_listed() -> None:
    slow = step_row()
    slow["timings"]["ours+compile"] = timing(12_000)
    pinned, default = operator_row(compiled=5), operator_row(shape=[100, 784])
    pinned["default_allocator"] = operator_row()["default_allocator"]
    default["default_allocator"]["timings"]["compile"] = timing(4)
    close = operator_row(shape=[1024, 784], ours=10.1, compiled=10)
    close["timings"]["compile"]["samples"] = [9.0, 12.0] * 6
    close["default_allocator"] = operator_row()["default_allocator"]
    file = document(operators=[operator_row(), pinned, default, close], training=[slow])
    assert losses.slower(file).rows == [
        ["bernoulli_log_prob fwd+bwd 8192x784 float32", "pinned", "ours", "compile", "0.500", ""],
        ["bernoulli_log_prob fwd+bwd 100x784 float32", "default", "ours", "compile", "0.400", ""],
        ["bernoulli_log_prob fwd+bwd 1024x784 float32", "pinned", "ours", "compile", "0.990", "within chance"],
        ["mlp M=100 float32", "pinned", "ours+compile", "eager", "0.417", ""],
        ["mlp M=100 float32", "pinned", "ours+compile", "compile", "0.500", ""],
    ]


def mark_of(ours: list[float], peer: list[float]) -> str:
    """Of a peer that is faster by its percentiles, and has these samples."""
    row = operator_row(ours=10, compiled=9.5)
    row["timings"]["ours"]["samples"], row["timings"]["compile"]["samples"] = ours, peer
    del row["default_allocator"]
    (loss,) = losses.slower(document(operators=[row], training=[])).rows
    return loss[-1]


def test_chance_is_not_what_rounds_differ_by_among_each_other() -> None:
    """A peer that is 2 % faster in each of twelve rounds, of which some take three times as long as others."""
    disturbances = np.random.default_rng(0).uniform(1, 3, 12)
    assert mark_of(list(10 * disturbances), list(9.8 * disturbances)) == ""


def test_rounds_that_differ_by_chance_are_marked_but_for_the_level() -> None:
    """Of rows in which nothing differs one in twenty is not."""
    rounds = np.random.default_rng(0).exponential(0.2, (400, 2, 12))
    marks = [mark_of(*(10 * (1 + draws)).tolist()) for draws in rounds]
    assert 0.92 < marks.count("within chance") / len(marks) < 0.98


@pytest.mark.parametrize(("rounds", "mark"), [(5, ""), (4, "within chance"), (0, "within chance")])
def test_five_rounds_may_rule_chance_out(rounds: int, mark: str) -> None:
    """All of which the peer wins; where there are none, the percentiles are too few."""
    assert mark_of([10.0, 10.1, 10.2, 10.3, 10.4][:rounds], [9.0, 9.2, 9.1, 9.4, 9.3][:rounds]) == mark


def test_every_row_in_which_a_peer_needs_less_memory_is_listed() -> None:
    greedy = step_row(peak_bytes={"eager": 10**7, "compile": 2 * 10**7, "ours": 3 * 10**7, "ours+compile": 10**7})
    state = operator_row(shape=[100, 784], peak_bytes={"ours": 8016, "eager": 9000, "compile": 8008})
    operator = operator_row(peak_bytes={"ours": 5 * 10**6, "eager": 8 * 10**6, "compile": 4 * 10**6})
    assert losses.greedier(document(operators=[state, operator], training=[greedy])).rows == [
        ["bernoulli_log_prob fwd+bwd 8192x784 float32", "ours", "compile", "5.00", "4.00", "1.25"],
        ["mlp M=100 float32", "ours", "eager", "30.00", "10.00", "3.00"],
        ["mlp M=100 float32", "ours", "compile", "30.00", "20.00", "1.50"],
    ]


def test_the_readme_marks_the_steps_in_which_a_peer_does_better() -> None:
    row = step_row(peak_bytes={"eager": 10**7, "compile": 2 * 10**7, "ours": 3 * 10**7, "ours+compile": 10**7})
    row["timings"]["compile"] = timing(3500)
    table = overview.training([row])
    assert table.rows == [
        ["mlp", "100", "f32", "25,250", "1.25", "**0.88**", "1.67", "1.17", "10.0", "20.0", "**30.0**", "10.0"]
    ]
    assert len(table.headings) == len(table.rows[0])


def test_every_table_has_a_cell_for_each_heading() -> None:
    without_compile = operator_row(compile_seconds={}, bound=None, limits={})
    del without_compile["timings"]["compile"], without_compile["default_allocator"]
    file = document()
    file["operators"].append(without_compile)
    made = tables.tables(file)
    assert len(made) == 5
    for table in made:
        assert {len(row) for row in table.rows} == {len(table.headings)}, table.title
        assert len(list(table.plain())) == len(table.rows) + 1


def test_an_error_that_is_not_finite_stands_out() -> None:
    (row,) = tables.accuracy(document()["accuracy"]).rows
    assert row == ["normal_kl", "f32", "extreme", "0.0e+00", "1.0e-07", "2.0e-07", "not finite"]


def test_the_page_and_the_pictures_follow_the_results(tmp_path: Path) -> None:
    path = results.write(document(), tmp_path)
    project = tmp_path / "PROJECT.md"
    project.write_text("before\n<!-- measured -->\nold\n<!-- end of measured -->\nafter\n")
    readme.write(path, project)
    text = project.read_text()
    assert text.startswith("before\n<!-- measured -->\n2 cores of a CPU")
    assert text.endswith("<!-- end of measured -->\nafter\n")
    assert "| `bernoulli_log_prob` | fwd+bwd | 8192×784 | 9.9 | 79.2 | 39.6 | 8.0 | 4.0 | 72.0 | 4.0 | 91% |" in text
    assert "mlp M=16384 float32: the time was up" in (tmp_path / "README.md").read_text()
    for name in figures.PARTS:
        assert f"({name})" in (tmp_path / "README.md").read_text()
        assert Image.open(tmp_path / name).info[figures.SOURCE] == results.digest(path)


def test_pictures_of_what_was_not_measured_go(tmp_path: Path) -> None:
    figures.draw(document(), tmp_path, "")
    assert figures.draw(document(training=[], scaling=[]), tmp_path, "") == [
        tmp_path / "speed.png",
        tmp_path / "accuracy.png",
    ]
    assert not (tmp_path / "training.png").exists()


def test_partial_results_are_drawn(tmp_path: Path) -> None:
    """A peer that failed in one row, an operator whose curves were not begun, threads cut between one and two."""
    without_compile = operator_row(shape=[100, 784])
    del without_compile["timings"]["compile"]
    step = step_row(batch=1024)
    del step["timings"]["compile"], step["peak_bytes"]["compile"]
    point = document()["scaling"][0]
    points = [
        point,
        point | {"axis": "threads", "value": 4, "threads": 1},
        point | {"axis": "threads", "value": 4, "threads": 2},
        point | {"axis": "threads", "value": 16, "threads": 1},
        point | {"operator": "bernoulli_log_prob"},
    ]
    file = document(operators=[operator_row(), without_compile], training=[step_row(), step], scaling=points)
    assert [path.name for path in figures.draw(file, tmp_path, "")] == list(figures.PARTS)


@pytest.mark.parametrize("direction", ["fwd", "fwd+bwd"])
def test_the_legend_is_of_the_panel_that_has_something(direction: str) -> None:
    row = operator_row() | {"pass": direction}
    (legend,) = figures.speed(document(operators=[row])).legends
    assert [text.get_text() for text in legend.get_texts()] == ["eager", "torch.compile"]


def test_a_readme_without_marks_is_refused(tmp_path: Path) -> None:
    path = results.write(document(), tmp_path)
    (tmp_path / "PROJECT.md").write_text("nothing here\n")
    with pytest.raises(UserError, match="has 0 parts"):
        readme.write(path, tmp_path / "PROJECT.md")


def test_the_readme_is_what_the_committed_results_say() -> None:
    """After a measurement: `python -m benchmarks.readme` on its results.json, and commit all it wrote."""
    text = readme.PROJECT_README.read_text()
    (measured,) = readme.MARKED.findall(text)
    assert measured in {readme.section(results.read(path), str(path.parent.relative_to(ROOT))) for path in COMMITTED}, (
        "run python -m benchmarks.readme on the results that the README shows"
    )


@pytest.mark.parametrize("path", COMMITTED, ids=[path.parent.name for path in COMMITTED])
def test_pages_and_pictures_are_of_the_committed_results(path: Path) -> None:
    file = results.read(path)
    assert path.stat().st_size < 1_000_000
    assert (path.parent / "README.md").read_text() == readme.page(file)
    pictures = {name for name, part in figures.PARTS.items() if file[part]}
    assert {picture.name for picture in path.parent.glob("*.png")} == pictures
    for name in pictures:
        assert Image.open(path.parent / name).info[figures.SOURCE] == results.digest(path), name


def test_a_failed_peer_is_reported() -> None:
    from benchmarks.report import conditions

    row = operator_row(failed={"jax": "TypeError: why"})
    row["default_allocator"]["failed"] = {"compile": "RuntimeError: else"}
    file = document(operators=[row])
    name, said = "bernoulli_log_prob fwd+bwd 8192x784 float32", list(conditions(file))
    assert f"jax failed in {name}: TypeError: why" in said
    assert f"compile failed in {name} with the default allocator: RuntimeError: else" in said
    assert json.loads(results.dump(file)) == file
