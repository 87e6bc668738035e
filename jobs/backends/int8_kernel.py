"""The Triton kernel of `int8_product`; imported only where there is a GPU."""

# mypy: ignore-errors
# ruff: noqa: N803  (capitals are compile-time constants, as everywhere in Triton)
# Triton's language has no types: names below are device values.

import triton
import triton.language as tl


@triton.jit
def int8_lora(
    x_tiles,
    weight_tiles,
    y,
    x_scale,
    weight_scale,
    bias,
    reduced,
    b,
    rows,
    outputs,
    inputs,
    rank,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile (BLOCK_M, BLOCK_N) of the output; see `int8_product.product`."""
    program = tl.program_id(0)
    columns = tl.cdiv(outputs, BLOCK_N)
    first = program // (GROUP_M * columns) * GROUP_M
    group = min(tl.cdiv(rows, BLOCK_M) - first, GROUP_M)
    row = (first + program % (GROUP_M * columns) % group) * BLOCK_M
    column = program % (GROUP_M * columns) // group * BLOCK_N

    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for k in range(0, inputs, BLOCK_K):
        sums = tl.dot(x_tiles.load([row, k]), weight_tiles.load([column, k]).T, sums, out_dtype=tl.int32)

    m = row + tl.arange(0, BLOCK_M)
    n = column + tl.arange(0, BLOCK_N)
    in_rows, in_columns = m < rows, n < outputs
    scale_m = tl.load(x_scale + m, mask=in_rows, other=0.0)
    scale_n = tl.load(weight_scale + n, mask=in_columns, other=0.0)
    result = sums.to(tl.float32) * scale_m[:, None] * scale_n[None, :]
    if HAS_BIAS:
        result += tl.load(bias + n, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    for start in range(0, rank, BLOCK_RANK):
        r = start + tl.arange(0, BLOCK_RANK)
        left = tl.load(reduced + m[:, None] * rank + r[None, :], mask=in_rows[:, None] & (r < rank)[None, :], other=0.0)
        right = tl.load(b + n[:, None] * rank + r[None, :], mask=in_columns[:, None] & (r < rank)[None, :], other=0.0)
        result = tl.dot(left, right.T, result)
    place = y + m[:, None].to(tl.int64) * outputs + n[None, :]
    tl.store(place, result.to(y.dtype.element_ty), mask=in_rows[:, None] & in_columns[None, :])
