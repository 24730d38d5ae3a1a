// What the sanitizers have to be told about fibers, barriers and shared memory; nothing in the plain build.
//
// The emulation itself is compiled without instrumentation and only linked with a sanitizer, which therefore sees the
// accesses of kernels and none of the emulation's own.
#pragma once

#include <stddef.h>

#if defined(VAE_EXT_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(VAE_EXT_EMULATION_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace vae_ext::emulation::sanitizer {

#if defined(VAE_EXT_EMULATION_ASAN)

// Around every switch of stacks; `fake_stack` keeps what AddressSanitizer has for the one that is left.
inline void start_switch(void** fake_stack, const void* bottom, size_t size) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
inline void finish_switch(void* fake_stack, const void** old_bottom, size_t* old_size) {
  __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_size);
}
inline void forbid(const void* begin, size_t bytes) { __asan_poison_memory_region(begin, bytes); }
inline void allow(const void* begin, size_t bytes) { __asan_unpoison_memory_region(begin, bytes); }

#else

inline void start_switch(void**, const void*, size_t) {}
inline void finish_switch(void*, const void**, size_t*) {}
inline void forbid(const void*, size_t) {}
inline void allow(const void*, size_t) {}

#endif

#if defined(VAE_EXT_EMULATION_TSAN)

// Blocks that run at the same time, as far as ThreadSanitizer knows: fibers take 0.5 ms each to create, so those of two
// blocks serve all, and neighbours among the blocks of a grid are told apart.
constexpr int kConcurrentBlocks = 2;

inline void* current_fiber() { return __tsan_get_current_fiber(); }
inline void* create_fiber() { return __tsan_create_fiber(0); }
inline void destroy_fiber(void* fiber) { __tsan_destroy_fiber(fiber); }
// Turning to another fiber puts nothing in order: only what releases and acquires a token does.
inline void switch_to(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }
inline void release(char* token) { __tsan_release(token); }
inline void acquire(char* token) { __tsan_acquire(token); }

#else

constexpr int kConcurrentBlocks = 1;

inline void* current_fiber() { return nullptr; }
inline void* create_fiber() { return nullptr; }
inline void destroy_fiber(void*) {}
inline void switch_to(void*) {}
inline void release(char*) {}
inline void acquire(char*) {}

#endif

}  // namespace vae_ext::emulation::sanitizer
