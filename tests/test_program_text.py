"""What an iteration launches, moves and writes, read from programs: one written by hand, with its answers."""

import pytest

from specexit_jax.sizing.program_text import bytes_of, collectives_of, iteration_of

PROGRAM = """HloModule jit_f, is_scheduled=true

%placed (p0: bf16[2,4096,128], p1: bf16[2,4,128], p2: s32[2]) -> bf16[2,4096,128] {
  %p0 = bf16[2,4096,128]{2,1,0} parameter(0)
  %p1 = bf16[2,4,128]{2,1,0} parameter(1)
  %p2 = s32[2]{0} parameter(2)
  ROOT %scatter.1 = bf16[2,4096,128]{2,1,0} scatter(%p0, %p2, %p1), update_window_dims={1}, to_apply=%add
}

%picked (p0.1: bf16[50000,64], p1.1: s32[8]) -> bf16[8,64] {
  %p0.1 = bf16[50000,64]{1,0} parameter(0)
  %view = bf16[50000,64]{1,0} bitcast(%p0.1)
  %p1.1 = s32[8]{0} parameter(1)
  ROOT %gather.1 = bf16[8,64]{1,0} gather(%view, %p1.1), offset_dims={1}
}

%graph (g0: bf16[8,64], g1: bf16[64,1024,16]) -> bf16[8,1024,16] {
  %g0 = bf16[8,64]{1,0} parameter(0)
  %g1 = bf16[64,1024,16]{2,1,0} parameter(1)
  ROOT %gemm_fusion_dot.7 = bf16[8,1024,16]{2,1,0} fusion(%g0, %g1), kind=kCustom, calls=%product
}

%body (carry: (bf16[2,4096,128], bf16[50000,64])) -> (bf16[2,4096,128], bf16[50000,64]) {
  %carry = (bf16[2,4096,128]{2,1,0}, bf16[50000,64]{1,0}) parameter(0)
  %cache = bf16[2,4096,128]{2,1,0} get-tuple-element(%carry), index=0
  %table = bf16[50000,64]{1,0} get-tuple-element(%carry), index=1
  %ids = s32[8]{0} constant({0, 1, 2, 3, 4, 5, 6, 7})
  %new = bf16[2,4,128]{2,1,0} custom-call(%ids), custom_call_target="x"
  %input_scatter_fusion.3 = bf16[2,4096,128]{2,1,0} fusion(%cache, %new, %ids), kind=kInput, calls=%placed
  %loop_gather_fusion = bf16[8,64]{1,0} fusion(%table, %ids), kind=kLoop, calls=%picked
  %weights = bf16[64,1024,16]{2,1,0} constant({...})
  %call.1 = bf16[8,1024,16]{2,1,0} call(%loop_gather_fusion, %weights), to_apply=%graph
  %t = (bf16[2,4,128], bf16[2,4096,128]) custom-call(%new, %input_scatter_fusion.3, %ids), output_to_operand_aliasing={{1}: (1, {})}
  %copy.5 = bf16[50000,64]{1,0} copy(%table)
  %again = (bf16[50000,64]{1,0}, pred[]) while(%in.1), condition=%seldom, body=%rerun
  %all-reduce-start = f32[8]{0} all-reduce-start(%ids), to_apply=%add
  %all-reduce-done = f32[8]{0} all-reduce-done(%all-reduce-start)
  ROOT %tuple = (bf16[2,4096,128]{2,1,0}, bf16[50000,64]{1,0}) tuple(%input_scatter_fusion.3, %copy.5)
}

ENTRY %main (a: bf16[2,4096,128], b: bf16[50000,64]) -> (bf16[2,4096,128], bf16[50000,64]) {
  %a = bf16[2,4096,128]{2,1,0} parameter(0)
  %b = bf16[50000,64]{1,0} parameter(1)
  %all-gather.1 = bf16[50000,64]{1,0} all-gather(%b), dimensions={0}
  %in = (bf16[2,4096,128]{2,1,0}, bf16[50000,64]{1,0}) tuple(%a, %all-gather.1)
  ROOT %while.1 = (bf16[2,4096,128]{2,1,0}, bf16[50000,64]{1,0}) while(%in), condition=%cond, body=%body
}
"""
NEW, ROWS, TABLE, WEIGHTS, OUT = 2 * 4 * 128 * 2, 8 * 64 * 2, 50_000 * 64 * 2, 64 * 1024 * 16 * 2, 8 * 1024 * 16 * 2


def test_an_iteration_is_its_launches_its_bytes_and_what_it_writes():
    found = iteration_of(PROGRAM)
    assert found.launches == 7
    assert found.kernels["gemm_fusion_dot"] == 1, "inside a call"
    assert found.kernels["again"] == 1, "a loop of one round or none: what it carries is not written"
    ids = 8 * 4
    custom, placed = ids + NEW, NEW + NEW + 2 * 4  # the new part is read, and written in place
    picked, product, copied = ROWS + ids + ROWS, ROWS + WEIGHTS + OUT, 2 * TABLE
    kernel = (
        NEW + ids + NEW + NEW
    )  # two operands read, one result fresh, and into the third operand as much as the largest
    assert found.moved == custom + placed + picked + product + copied + kernel
    assert [(each.operation, each.in_place, each.bytes) for each in found.written] == [
        ("copy", False, TABLE),
        ("t", True, NEW + 2 * 4096 * 128 * 2),
        ("input_scatter_fusion", True, 2 * 4096 * 128 * 2),
    ]
    assert found.collectives == {"all-reduce": 1}


def test_collectives_of_a_whole_program_and_bytes_of_shapes():
    assert collectives_of(PROGRAM) == {"all-reduce": 1, "all-gather": 1}
    assert bytes_of("(f32[2,3]{1,0}, bf16[4]{0}, pred[])") == 24 + 8 + 1


def test_a_program_without_a_loop_is_told():
    with pytest.raises(ValueError, match="no loop"):
        iteration_of("ENTRY %main (a: f32[2]) -> f32[2] {\n  ROOT %a = f32[2]{0} parameter(0)\n}\n")
