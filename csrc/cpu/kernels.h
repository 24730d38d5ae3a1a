// The kernels, one set for each instruction set, and the table through which one set is chosen.
//
// Each kernel does the work units [begin, end) of its problem; units are independent and may be done in any order by
// any thread. Every .cpp beside this file is compiled once for each instruction set, with VAE_EXT_ISA naming it, and
// defines explicit specialisations: strong symbols, so that the linker can never pass code of one instruction set off
// as another's.
#pragma once

#include "../rows.h"

namespace vae_ext::cpu {

struct Baseline;
struct Avx2;
struct Avx512;

// Elements of a row that one summing unit takes: longer rows are split, and their parts added in order.
constexpr int64_t kSpan = 16384;
// Elements of a row that one elementwise unit takes.
constexpr int64_t kSegment = 1024;
// Replicas that one unit sums where an output is broadcast; the sums of several chunks are added in order.
constexpr int64_t kReplicaChunk = 512;

enum class Elementary { exp, expm1, expm1_minus_x, log, log1p, sigmoid, sinpi, cospi };

// Sums over rows: unit = row * ceil(event / kSpan) + span. With one span out[0] holds the finished result of each row
// (float, double when wide); with several it holds the double sum of each unit.
template <class Isa>
void bernoulli_log_prob(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_log_prob(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_kl(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_log_ratio(const Problem&, int64_t begin, int64_t end);

// Elementwise: unit = (row of the outputs * chunks of replicas + chunk) * ceil(event / kSegment) + segment. With
// several chunks the outputs are workspaces [chunks, rows, event].
template <class Isa>
void bernoulli_log_prob_backward(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_log_prob_backward(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_kl_backward(const Problem&, int64_t begin, int64_t end);
// normal_rsample and its backward: of whichever standard distribution the problem's noise is.
template <class Isa>
void normal_rsample(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_rsample_backward(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_rsample_kl_backward(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void normal_log_ratio_backward(const Problem&, int64_t begin, int64_t end);
template <class Isa>
void sum_replicas(const Problem&, int64_t begin, int64_t end);

// csrc/math/elementary.h laid open to the tests: on vectors, or one scalar at a time.
template <class Isa>
void elementary(Elementary function, bool scalar, const float* in, float* out, int64_t count);

using Kernel = void (*)(const Problem&, int64_t begin, int64_t end);

struct Kernels {
  const char* name;
  Kernel bernoulli_log_prob, normal_log_prob, normal_kl, normal_log_ratio;
  Kernel bernoulli_log_prob_backward, normal_log_prob_backward, normal_kl_backward;
  Kernel normal_rsample, normal_rsample_backward, normal_rsample_kl_backward, normal_log_ratio_backward;
  Kernel sum_replicas;
  void (*elementary)(Elementary, bool scalar, const float* in, float* out, int64_t count);
};

template <class Isa>
constexpr Kernels kernels_for(const char* name) {
  return {
      .name = name,
      .bernoulli_log_prob = &bernoulli_log_prob<Isa>,
      .normal_log_prob = &normal_log_prob<Isa>,
      .normal_kl = &normal_kl<Isa>,
      .normal_log_ratio = &normal_log_ratio<Isa>,
      .bernoulli_log_prob_backward = &bernoulli_log_prob_backward<Isa>,
      .normal_log_prob_backward = &normal_log_prob_backward<Isa>,
      .normal_kl_backward = &normal_kl_backward<Isa>,
      .normal_rsample = &normal_rsample<Isa>,
      .normal_rsample_backward = &normal_rsample_backward<Isa>,
      .normal_rsample_kl_backward = &normal_rsample_kl_backward<Isa>,
      .normal_log_ratio_backward = &normal_log_ratio_backward<Isa>,
      .sum_replicas = &sum_replicas<Isa>,
      .elementary = &elementary<Isa>,
  };
}

}  // namespace vae_ext::cpu
