// self_test FAULT [without]: runs the kernel of faults.h with its fault, or without. Exit status 1 where the values are
// wrong, 2 where the emulation refused what the kernel did; the sanitizers have their own.
#include <stdio.h>

#include <string>

#include "buffer.h"
#include "faults.h"

namespace vae_ext::emulation {
namespace {

constexpr int kThreads = 64;

using Kernel = void (*)(const float* in, float* out);
// out[i] where nothing is wrong, t = i mod kThreads.
using Expected = float (*)(int t);

struct Fault {
  const char* name;
  Kernel with, without;
  unsigned blocks;
  int written;
  Expected expected;
};

float input(int t) { return static_cast<float>(1 + t * t); }
float own(int t) { return input(t); }
float of_warp(int t) {
  float sum = 0.0f;
  for (int lane = 0; lane < kWarp; ++lane) sum += input(t / kWarp * kWarp + lane);
  return sum;
}

const Fault kFaults[] = {
    {"read_after_write", read_after_write<true>, read_after_write<false>, 1, 64,
     [](int t) { return input((t + 1) % kThreads); }},
    {"write_after_read", write_after_read<true>, write_after_read<false>, 1, 64,
     [](int t) { return input(t + 1 < kThreads ? t + 1 : t); }},
    {"shuffle_as_fence", shuffle_as_fence<true>, shuffle_as_fence<false>, 1, 64,
     [](int t) { return input(t ^ 1) + of_warp(t); }},
    {"wrong_part_of_warp", wrong_part_of_warp<true>, wrong_part_of_warp<false>, 1, 64,
     [](int t) { return input(t ^ 8); }},
    {"global_out_of_range", global_out_of_range<true>, global_out_of_range<false>, 1, 64, own},
    {"shared_out_of_range", shared_out_of_range<true>, shared_out_of_range<false>, 1, 64,
     [](int t) { return 2 * input(t); }},
    {"misaligned", misaligned<true>, misaligned<false>, 1, 60, own},
    {"unwritten_output", unwritten_output<true>, unwritten_output<false>, 1, 64, own},
    {"uninitialised_shared", uninitialised_shared<true>, uninitialised_shared<false>, 1, 64, own},
    {"return_before_barrier", return_before_barrier<true>, return_before_barrier<false>, 1, 64, own},
    {"return_before_shuffle", return_before_shuffle<true>, return_before_shuffle<false>, 1, 32,
     [](int t) { return input(t == 31 ? 31 : t + 1); }},
    {"lane_outside_mask", lane_outside_mask<true>, lane_outside_mask<false>, 1, 16, [](int t) { return input(t ^ 8); }},
    {"different_masks", different_masks<true>, different_masks<false>, 1, 64, own},
    {"barrier_on_one_side", barrier_on_one_side<true>, barrier_on_one_side<false>, 1, 64, own},
    {"two_blocks_write_one_address", two_blocks_write_one_address<true>, two_blocks_write_one_address<false>, 2, 128,
     own},
    {"block_reads_of_another", block_reads_of_another<true>, block_reads_of_another<false>, 3, 192, own},
    {"too_much_shared", too_much_shared<true>, too_much_shared<false>, 1, 64, own},
};

int run(const Fault& fault, bool with) {
  const Buffer<float> in(kThreads), out(static_cast<size_t>(fault.written));
  for (int t = 0; t < kThreads; ++t) in[t] = input(t);
  cuda::launch(with ? fault.with : fault.without, fault.blocks, kThreads, nullptr, in.data(), out.data());
  int wrong = 0;
  for (int i = 0; i < fault.written; ++i) wrong += out[i] != fault.expected(i % kThreads);
  if (wrong > 0) fprintf(stderr, "%d values of %d are wrong\n", wrong, fault.written);
  return wrong > 0 ? 1 : 0;
}

}  // namespace
}  // namespace vae_ext::emulation

int main(int argc, char** argv) {
  using namespace vae_ext::emulation;
  const std::string name = argc > 1 ? argv[1] : "";
  const bool with = argc == 2;
  for (const Fault& fault : kFaults) {
    if (name != fault.name) continue;
    try {
      return run(fault, with);
    } catch (const Error& error) {
      fprintf(stderr, "emulation: %s\n", error.what());
      return 2;
    }
  }
  fprintf(stderr, "There is no fault '%s'.\n", name.c_str());
  return 3;
}
