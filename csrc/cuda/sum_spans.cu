#include "sum_rows.cuh"

namespace vae_ext::cuda {
namespace {

// A warp to a row: each lane adds up every 32nd span in order, and the lanes by halves.
__global__ void __launch_bounds__(kMaxThreads) sum_spans_kernel(const __grid_constant__ Problem p, int64_t rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  constexpr int kAbreast = kMaxThreads / kWarp;
  for (int64_t first = int64_t{blockIdx.x} * kAbreast; first < rows; first += int64_t{gridDim.x} * kAbreast) {
    const int64_t row = first + threadIdx.x / kWarp;
    if (row >= rows) return;  // With its whole warp.
    RowOffsets<1> at;
    at.advance(p, 0, p.rows.dims, row);
    LaneSums<double, 1> sums;
    for (int64_t span = lane; span < p.rows.event; span += kWarp)
      sums.lane[0] += static_cast<const double*>(p.in[0].data)[at.in[0] + span];
    const double sum = add_lanes(sums, kWarp);
    if (lane == 0) write(p.out[0], output_offset(p, p.out[0], p.rows.dims, row), p.factor * sum + p.constant);
  }
}

}  // namespace

void sum_spans(const Problem& p, Stream stream) {
  const int64_t rows = count_rows(p.rows, 0, p.rows.dims);
  if (rows > 0) launch(&sum_spans_kernel, grid_for(divide_up(rows * kWarp, kMaxThreads)), kMaxThreads, stream, p, rows);
}

}  // namespace vae_ext::cuda
