// The CUDA kernels, each launched on a whole Problem. Under the names and with the contracts of csrc/cpu/kernels.h: the
// same noise and the same bits for whatever is elementwise; sums in a tree of their own, a function of the event alone.
//
// Every pointer in a Problem is the current device's, and read there; nothing waits for the device or allocates on it.
// An input without data stands for zero. Inputs, x among them, are of any dtype in DType, outputs of any but u8.
#pragma once

#include "../rows.h"

struct CUstream_st;

namespace vae_ext::cuda {

using Stream = CUstream_st*;

// Elements of a row that one block sums: longer rows are split, and their parts added by sum_spans.
constexpr int64_t kSpan = 16384;
// Replicas that one thread sums where an output is broadcast; the sums of several chunks are added in order. Fewer than
// on the CPU, since it takes tens of thousands of threads to read at the memory's speed.
constexpr int64_t kReplicaChunk = 32;

using Kernel = void(const Problem&, Stream);

// Sums over rows. With one span (event <= kSpan) out[0] holds the finished result of each row, of its dtype. With
// several it holds doubles [sums, spans]: where the result would stand at offset i by out[0].stride, the sum of span s
// stands at i * spans + s, for sum_spans to add up.
Kernel bernoulli_log_prob, normal_log_prob, normal_kl;

// Samples and a sum in one pass over the inputs: mean, scale, prior mean, prior scale. out[0] is z, out[1] the sum, as
// above: the KL, of the first sample's row (out[1].stride is zero along the samples), or the log ratio of each sample.
Kernel normal_rsample_kl, normal_rsample_log_ratio;

// factor * (in[0, 0] + in[0, 1] + ...) + constant of each row of doubles, in an order that depends on their number
// alone: the second half of a sum over rows of several spans. rows.event is the number of spans, out[0] of any floating
// dtype.
Kernel sum_spans;

// The sum of one dense row, added in double, for a gradient that is one number. in[0] is the row, out[0] of any
// floating dtype; of several spans as above.
Kernel sum_event;

// Elementwise. Where the last reduced_dims of the rows hold more than kReplicaChunk replicas, the outputs are
// workspaces [chunks, rows, event]. normal_rsample and its backward are of whichever standard distribution the
// problem's noise is; any but the normal with a std or log_std.
Kernel bernoulli_log_prob_backward, normal_log_prob_backward, normal_kl_backward;
Kernel normal_rsample, normal_rsample_backward, normal_rsample_kl_backward, normal_log_ratio_backward;
Kernel sum_replicas;

}  // namespace vae_ext::cuda
