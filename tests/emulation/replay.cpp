// replay FILE [BLOCKS]: runs the launches that recording.py wrote down, each in memory of exactly the size it may touch
// and, where the kernel goes round its work, by so many blocks, and compares what they write. Exit status 1 where that
// is not the same, 2 where the emulation refused what a kernel did.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "buffer.h"
#include "kernel_table.h"
#include "sanitizer.h"

namespace vae_ext::emulation {
namespace {

class Reader {
 public:
  explicit Reader(const char* path) : file_(fopen(path, "rb")) {
    if (!file_) throw std::runtime_error(std::string("cannot open ") + path);
  }
  ~Reader() { fclose(file_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  bool at_end() {
    const int next = getc(file_);
    if (next != EOF) ungetc(next, file_);
    return next == EOF;
  }
  void bytes(void* to, size_t count) {
    if (fread(to, 1, count, file_) != count) throw std::runtime_error("the file ends too early");
  }
  size_t number() {
    int64_t value = 0;
    bytes(&value, sizeof(value));
    return static_cast<size_t>(value);
  }

 private:
  FILE* file_;
};

// What one pointer of a Problem leads to, at an address that is aligned as the recorded one was, and no better.
class Memory {
 public:
  Memory(Reader& reader, Problem* problem)
      : pointer_(reader.number()),
        misalignment_(reader.number()),
        is_output_(reader.number() != 0),
        size_(reader.number()),
        buffer_(misalignment_ + size_),
        expected_(is_output_ ? size_ : 0) {
    sanitizer::forbid(buffer_.data(), misalignment_);
    reader.bytes(is_output_ ? expected_.data() : begin(), size_);
    char* const address = begin();
    memcpy(reinterpret_cast<char*>(problem) + pointer_, &address, sizeof(address));
  }

  bool is_as_expected() const { return std::equal(expected_.begin(), expected_.end(), begin()); }

 private:
  char* begin() const { return buffer_.data() + misalignment_; }

  size_t pointer_, misalignment_;
  bool is_output_;
  size_t size_;
  Buffer<char> buffer_;
  std::vector<char> expected_;
};

// Whether the kernel wrote what is recorded.
bool replay(Reader& reader, int launch, unsigned blocks) {
  std::string name(reader.number(), '\0');
  reader.bytes(name.data(), name.size());
  Problem problem;
  if (reader.number() != sizeof(problem)) throw std::runtime_error("Problem is of another size than the recorded one");
  reader.bytes(&problem, sizeof(problem));
  const size_t count = reader.number();
  std::vector<Memory> memories;
  memories.reserve(count);
  for (size_t i = 0; i < count; ++i) memories.emplace_back(reader, &problem);
  try {
    run_kernel(name, problem, blocks);
  } catch (const Error& error) {
    throw Error("launch " + std::to_string(launch) + ", " + name + ": " + error.what());
  }
  bool right = true;
  for (const Memory& memory : memories) right = right && memory.is_as_expected();
  if (!right) fprintf(stderr, "launch %d, %s: the outputs are not those recorded\n", launch, name.c_str());
  return right;
}

}  // namespace
}  // namespace vae_ext::emulation

int main(int argc, char** argv) {
  using namespace vae_ext::emulation;
  if (argc < 2) return 3;
  const unsigned blocks = argc > 2 ? static_cast<unsigned>(atoi(argv[2])) : kAnyNumberOfBlocks;
  try {
    Reader reader(argv[1]);
    int launches = 0, wrong = 0;
    for (; !reader.at_end(); ++launches) wrong += !replay(reader, launches, blocks);
    printf("%d launches, %d wrong\n", launches, wrong);
    return wrong > 0 ? 1 : 0;
  } catch (const std::runtime_error& error) {
    fprintf(stderr, "emulation: %s\n", error.what());
    return 2;
  }
}
