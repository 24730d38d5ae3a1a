// What is left of a sum after the kernels that read the inputs: of spans, and of a gradient that is one number.
#include "sum_rows.cuh"

namespace vae_ext::cuda {
namespace {

// A warp to a row: each lane adds up every 32nd span in order, and the lanes by halves.
__global__ void __launch_bounds__(kMaxThreads) sum_spans_kernel(const __grid_constant__ Problem p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t rows = count_rows(p.rows, 0, p.rows.dims), abreast = blockDim.x / kWarp;
  for (int64_t first = blockIdx.x * abreast; first < rows; first += gridDim.x * abreast) {
    const int64_t row = first + threadIdx.x / kWarp;
    if (row >= rows) return;  // With its whole warp.
    Offsets<1, 1> at;
    at.advance(p, 0, p.rows.dims, row);
    double sum = 0.0;
    for (int64_t span = lane; span < p.rows.event; span += kWarp)
      sum += static_cast<const double*>(p.in[0].data)[at.in[0] + span];
    sum = add_lanes(sum, kWarp);
    if (lane == 0) write(p.out[0], at.out[0], p.factor * sum + p.constant);
  }
}

}  // namespace

void sum_spans(const Problem& p, Stream stream) {
  const int64_t blocks = divide_up(count_rows(p.rows, 0, p.rows.dims) * kWarp, kMaxThreads);
  if (blocks == 0) return;
  launch(&sum_spans_kernel, static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), kMaxThreads, stream, p);
}

void sum_event(const Problem& p, Stream stream) {
  launch_sums(&sum_rows_kernel<Plain<Identity>, Elements<double>>, p, stream);
}

}  // namespace vae_ext::cuda
