"""tools/cuda_report.py, on small outputs of ptxas and PTX written for it."""

from __future__ import annotations

import pytest
from cuda_report import (
    Kernel,
    ReportError,
    Usage,
    compile_to_ptx,
    complaints,
    parse_usage,
    readable,
    table,
    widest_loads,
)

pytestmark = pytest.mark.cpu_only("about texts of the compiler")

PTXAS = """
ptxas info    : 0 bytes gmem, 24 bytes cmem[4]
ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90'
ptxas info    : Function properties for _Z1aPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 528 bytes smem, 656 bytes cmem[0]
ptxas info    : Compile time = 12.345 ms
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_90'
ptxas info    : Function properties for _Z1bPf
    96 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 96 bytes cumulative stack size
"""

PTX = """
.version 9.0
.visible .entry _Z4widePf(
	.param .u64 _Z4widePf_param_0
)
{
	ld.param.u64 	%rd1, [_Z4widePf_param_0];
	ld.global.v4.f32 	{%f1, %f2, %f3, %f4}, [%rd1];
	ld.global.nc.f32 	%f5, [%rd1];
}
.visible .entry _Z7doublesPd(
	.param .u64 _Z7doublesPd_param_0
)
{
	ld.global.nc.L1::no_allocate.v2.f64 	{%fd1, %fd2}, [%rd1];
}
.visible .entry _Z6narrowPf(
	.param .u64 _Z6narrowPf_param_0
)
{
	ld.param.v4.b32 	{%r1, %r2, %r3, %r4}, [_Z6narrowPf_param_0];
	ld.shared::cta.v4.f32 	{%f1, %f2, %f3, %f4}, [%r1];
	ld.global.v2.f32 	{%f1, %f2}, [%rd1];
	ld.global.f32 	%f1, [%rd1];
	st.global.v4.f32 	[%rd1], {%f1, %f2, %f3, %f4};
}
.visible .entry _Z4nonePf(
	.param .u64 _Z4nonePf_param_0
)
{
	ret;
}
"""


def test_usage_is_read_from_ptxas() -> None:
    assert parse_usage(PTXAS) == {
        "_Z1aPf": Usage(registers=32, shared=528, stack=0, spills=0),
        "_Z1bPf": Usage(registers=255, shared=0, stack=96, spills=20),
    }


def test_only_loads_of_device_memory_count() -> None:
    assert widest_loads(PTX) == {"_Z4widePf": 16, "_Z7doublesPd": 16, "_Z6narrowPf": 8, "_Z4nonePf": 0}


@pytest.mark.parametrize(
    ("demangled", "expected"),
    [
        ("void vae_ext::cuda::sum_rows<float>(vae_ext::Problem)", "sum_rows<float>"),
        (
            "void vae_ext::cuda::(anonymous namespace)::map_rows<vae_ext::Kl<(vae_ext::ScaleKind)2, true> >(float*)",
            "map_rows<Kl<ScaleKind 2, true>>",
        ),
        ("void _INTERNAL_0a1b_4_f_cu_2c::sum<2>(int (*)(int))", "sum<2>"),
        ("_Z1aPf", "_Z1aPf"),
    ],
)
def test_names_are_readable(demangled: str, expected: str) -> None:
    assert readable(demangled) == expected


def test_the_builds_command_is_kept_but_for_what_it_makes() -> None:
    command = ["nvcc", "-O3", "--generate-code=arch=compute_90,code=[sm_90]", "-fmad=false", "-x", "cu"]
    actual, architecture = compile_to_ptx([*command, "-c", "a.cu", "-o", "a.o"], "a.ptx")
    assert architecture == "90"
    assert actual == ["nvcc", "-O3", "-fmad=false", "-x", "cu", "a.cu", "-o", "a.ptx", "-ptx", "-arch=compute_90"]
    with pytest.raises(ReportError, match="names no architecture"):
        compile_to_ptx(["nvcc", "-c", "a.cu", "-o", "a.o"], "a.ptx")


def _kernel(name: str, *, spills: int = 0, widest_load: int = 16) -> Kernel:
    return Kernel(name, Usage(registers=32, shared=0, stack=0, spills=spills), widest_load)


def test_spills_and_narrow_loads_of_hot_kernels_are_complaints() -> None:
    good = [
        _kernel("map_rows<Kl, Groups<float, float, int 1>, false>"),
        _kernel("map_rows<Kl, Groups<bfloat16, unsigned char, 1>, false>", widest_load=8),
        _kernel("map_rows<Kl, Groups<bfloat16, unsigned char, int 2>, false>"),
        _kernel("map_rows<Kl, Groups<double, double, int 1>, false>", spills=8),
        _kernel("sum_rows<Kl, Elements<float>>", spills=8, widest_load=4),
        _kernel("sum_spans", widest_load=8),
    ]
    assert not list(complaints(good))
    bad = [
        _kernel("map_rows<Kl, Groups<bfloat16, float, int 1>>", spills=8, widest_load=2),
        _kernel("map_rows<Kl, Groups<float16, float, int 2>>", widest_load=8),
        _kernel("sum_rows<Kl, Groups<float, float, int 1>>", widest_load=4),
    ]
    assert list(complaints(bad)) == [
        "map_rows<Kl, Groups<bfloat16, float, int 1>> spills 8 bytes of registers; expected none.",
        "map_rows<Kl, Groups<bfloat16, float, int 1>> loads 2 bytes at a time; expected 8.",
        "map_rows<Kl, Groups<float16, float, int 2>> loads 8 bytes at a time; expected 16.",
        "sum_rows<Kl, Groups<float, float, int 1>> loads 4 bytes at a time; expected 16.",
    ]


def test_the_table_has_a_line_for_each_template_and_heat() -> None:
    kernels = [
        _kernel("map_rows<Kl<ScaleKind 0, true>, Elements<float>, false>", spills=16),
        _kernel("map_rows<Kl<ScaleKind 1, true>, Elements<double>, false>"),
        _kernel("map_rows<Kl<ScaleKind 1, true>, Groups<float, float>, false>"),
        _kernel("sum_rows<Plain<Kl<ScaleKind 1, true>>, Groups<float, float>>"),
        _kernel("sum_rows<Plain<Bernoulli>, Groups<float, float>>"),
        _kernel("spans"),
    ]
    assert [line.rsplit(maxsplit=6) for line in list(table(kernels))[1:]] == [
        ["map_rows<Kl>", "2", "32", "0", "0", "0-16", "16"],
        ["map_rows<Kl>, hot", "1", "32", "0", "0", "0", "16"],
        ["spans", "1", "32", "0", "0", "0", "16"],
        ["sum_rows<Bernoulli>, hot", "1", "32", "0", "0", "0", "16"],
        ["sum_rows<Kl>, hot", "1", "32", "0", "0", "0", "16"],
    ]
