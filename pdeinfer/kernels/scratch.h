// Aligned memory, and a pool that reuses it between layers.
#pragma once

#include <stdlib.h>

#include <atomic>

#include "solver.h"

namespace pdeinfer {

// Returns null if there is not enough memory.
inline void* allocate(size_t size) {
  return aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
}

// Keeps scratch memory for the next layer: page faults in new memory would take longer than the layer.
class ScratchPool {
 public:
  // Returns null if there is not enough memory.
  void* take(size_t size) {
    for (std::atomic<Header*>& place : places_) {
      Header* const header = place.load(std::memory_order_relaxed) ? place.exchange(nullptr) : nullptr;
      if (!header) continue;
      if (header->size >= size) return header + 1;
      free(header);
      break;
    }
    Header* const header = static_cast<Header*>(allocate(sizeof(Header) + size));
    if (!header) return nullptr;
    header->size = size;
    return header + 1;
  }

  void give_back(void* memory) {
    Header* const header = static_cast<Header*>(memory) - 1;
    for (std::atomic<Header*>& place : places_) {
      Header* expected = nullptr;
      if (header->size <= kLargestKept && place.compare_exchange_strong(expected, header)) return;
    }
    free(header);
  }

 private:
  struct alignas(kAlignment) Header {
    size_t size;
  };
  static constexpr size_t kLargestKept = 8 << 20;
  std::atomic<Header*> places_[64];  // if all are taken, threads allocate new memory
};

inline ScratchPool scratch_pool;

}  // namespace pdeinfer
