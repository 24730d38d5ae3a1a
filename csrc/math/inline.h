// How functions that several devices or instruction sets compile are inlined.
#pragma once

// Forced inline, so that no object compiled for one instruction set exports code that the linker could share with
// another (docs/design.md, The CPU path).
#define VAE_EXT_HOST_INLINE inline __attribute__((always_inline))
#if defined(__CUDACC__)
#define VAE_EXT_INLINE __host__ __device__ __forceinline__
#else
#define VAE_EXT_INLINE VAE_EXT_HOST_INLINE
#endif
// For what is large and called from many places; in unnamed namespaces or static only.
#define VAE_EXT_NOINLINE __attribute__((noinline, unused))
