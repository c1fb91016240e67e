#pragma once

#define CUDA_NO_HALF  // as a name for everyone
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// Plays a CUDA kernel on the CPU: what model/ops/simt_cuda.cuh is on a GPU. Each thread of a block
// is a fiber that runs until it comes to a barrier or an operation of its warp. Finds wrong
// indices, threads that miss a barrier, unaligned addresses, reads of shared memory before it is
// filled and background copies that nobody waited for. It knows nothing of caches, memory order and
// time, and adds the products of a matrix operation one after the other.
//
// Kernels are written for nvcc: its pragmas and its conversions are none of this compiler's
// business.
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"

namespace penstock::model::simt {

class Machine {
 public:
  // Runs `body` as every thread of every block of a grid. Throws what a thread throws, and
  // std::runtime_error when threads wait for each other for ever.
  static void run(unsigned blocks_x, unsigned blocks_y, unsigned threads, std::size_t shared_bytes,
                  const std::function<void()>& body) {
    Machine machine(blocks_x, threads, shared_bytes, body);
    current() = &machine;
    for (machine.block_y_ = 0; machine.block_y_ < blocks_y; ++machine.block_y_) {
      for (machine.block_x_ = 0; machine.block_x_ < blocks_x; ++machine.block_x_) {
        machine.run_block();
      }
    }
    current() = nullptr;
  }

  static Machine*& current() {
    static Machine* machine = nullptr;
    return machine;
  }

  enum class Wait { none, warp, block };
  void wait(Wait what) {
    fiber().waits = what;
    leave();
  }

  // What every lane of the warp gives to an operation.
  struct Slot {
    alignas(16) std::array<std::byte, 32> bytes;
  };
  template <class T>
  std::array<T, 32> exchange(const T& mine) {
    static_assert(sizeof(T) <= sizeof(Slot));
    // Two sets in turn: a lane may be one operation ahead of another, never two.
    auto& slots = warps_[thread_ / 32][fiber().operations++ % 2];
    std::memcpy(slots[thread_ % 32].bytes.data(), &mine, sizeof(T));
    wait(Wait::warp);
    std::array<T, 32> all;
    for (unsigned lane = 0; lane < 32; ++lane) {
      std::memcpy(&all[lane], slots[lane].bytes.data(), sizeof(T));
    }
    return all;
  }

  void copy_later(void* to, const void* from, bool valid) {
    check(to, 16, "cp.async to");
    if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) fail("cp.async from an odd address");
    std::memset(to, 0xFF, 16);
    fiber().copies.push_back({to, valid ? from : nullptr});
  }
  void copies_done() {
    for (const auto& [to, from] : fiber().copies) {
      if (from == nullptr) {
        std::memset(to, 0, 16);
      } else {
        std::memcpy(to, from, 16);
      }
    }
    fiber().copies.clear();
  }

  // That 16 bytes at `pointer` are aligned shared memory.
  void check(const void* pointer, std::size_t size, const char* what) const {
    const auto* at = static_cast<const unsigned char*>(pointer);
    if (at < shared() || at + size > shared() + shared_bytes_) {
      fail(std::string(what) + " an address outside of shared memory");
    }
    if ((at - shared()) % 16 != 0) fail(std::string(what) + " an address that is not aligned");
  }
  [[noreturn]] static void fail(const std::string& why) { throw std::runtime_error(why); }

  unsigned char* shared() const {
    return reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(memory_.get()) + 63) /
                                            64 * 64);
  }
  unsigned thread() const { return thread_; }
  unsigned threads() const { return static_cast<unsigned>(fibers_.size()); }
  unsigned block_x() const { return block_x_; }
  unsigned block_y() const { return block_y_; }
  unsigned blocks_x() const { return blocks_x_; }

 private:
  static constexpr std::size_t kStackBytes = 128 << 10;
  struct Fiber {
    ucontext_t context;
    jmp_buf at;
    bool started = false;
    std::unique_ptr<std::byte[]> stack{new std::byte[kStackBytes]};
    bool done = false;
    Wait waits = Wait::none;
    unsigned operations = 0;
    std::vector<std::pair<void*, const void*>> copies;
  };

  Machine(unsigned blocks_x, unsigned threads, std::size_t shared_bytes,
          const std::function<void()>& body)
      : body_(body),
        fibers_(threads),
        warps_((threads + 31) / 32),
        shared_bytes_(shared_bytes),
        memory_(new std::byte[shared_bytes + 64]),
        blocks_x_(blocks_x) {
    if (threads % 32 != 0) fail("a block has whole warps here");
  }

  Fiber& fiber() { return fibers_[thread_]; }
  // ucontext starts fibers; jumps between them save no signal mask, which takes two system calls.
  void leave() {
    if (_setjmp(fiber().at) == 0) _longjmp(scheduler_, 1);
  }
  void resume() {
    if (_setjmp(scheduler_) != 0) return;
    if (fiber().started) _longjmp(fiber().at, 1);
    fiber().started = true;
    setcontext(&fiber().context);
  }

  static void enter() {
    Machine& machine = *current();
    try {
      machine.body_();
    } catch (...) {
      machine.failure_ = std::current_exception();
    }
    if (!machine.fiber().copies.empty() && !machine.failure_) {
      machine.failure_ = std::make_exception_ptr(std::runtime_error("copies nobody waited for"));
    }
    machine.fiber().done = true;
    machine.leave();
  }

  void run_block() {
    std::memset(shared(), 0xFF, shared_bytes_);  // NaN
    for (Fiber& fiber : fibers_) {
      fiber.done = false;
      fiber.started = false;
      fiber.waits = Wait::none;
      fiber.copies.clear();
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, &Machine::enter, 0);
    }
    for (unsigned phase = 0; !all_done(); ++phase) {
      bool moved = false;
      for (unsigned i = 0; i < fibers_.size(); ++i) {
        // First the first threads, then the last ones: neither may rely on it.
        thread_ = phase % 2 == 0 ? i : static_cast<unsigned>(fibers_.size()) - 1 - i;
        if (fiber().done || fiber().waits != Wait::none) continue;
        resume();
        if (failure_) std::rethrow_exception(failure_);
        moved = true;
      }
      moved = release() || moved;
      if (!moved) fail("threads wait for each other: some miss a barrier or a warp's operation");
    }
  }

  bool all_done() const {
    return std::all_of(fibers_.begin(), fibers_.end(), [](const Fiber& f) { return f.done; });
  }

  bool release() {
    const auto wait_for = [](Wait what) {
      return [what](const Fiber& f) { return f.waits == what; };
    };
    bool released = false;
    for (auto first = fibers_.begin(); first != fibers_.end(); first += 32) {
      if (!std::all_of(first, first + 32, wait_for(Wait::warp))) continue;
      for (auto f = first; f != first + 32; ++f) f->waits = Wait::none;
      released = true;
    }
    if (std::all_of(fibers_.begin(), fibers_.end(), wait_for(Wait::block))) {
      for (Fiber& f : fibers_) f.waits = Wait::none;
      released = true;
    }
    return released;
  }

  const std::function<void()>& body_;
  std::vector<Fiber> fibers_;
  std::vector<std::array<std::array<Slot, 32>, 2>> warps_;
  std::size_t shared_bytes_;
  std::unique_ptr<std::byte[]> memory_;
  jmp_buf scheduler_;
  std::exception_ptr failure_;
  unsigned blocks_x_;
  unsigned thread_ = 0;
  unsigned block_x_ = 0;
  unsigned block_y_ = 0;
};

inline unsigned thread() { return Machine::current()->thread(); }
inline unsigned threads() { return Machine::current()->threads(); }
inline unsigned block_x() { return Machine::current()->block_x(); }
inline unsigned block_y() { return Machine::current()->block_y(); }
inline unsigned blocks_x() { return Machine::current()->blocks_x(); }
inline void barrier() { Machine::current()->wait(Machine::Wait::block); }

template <class T>
T shuffle(T value, unsigned lane) {
  return Machine::current()->exchange(value)[lane % 32];
}
template <class T>
T shuffle_xor(T value, unsigned mask) {
  const unsigned lane = thread() % 32;
  return Machine::current()->exchange(value)[lane ^ mask];
}
template <class T>
T shuffle_up(T value, unsigned delta) {
  const unsigned lane = thread() % 32;
  return Machine::current()->exchange(value)[lane >= delta ? lane - delta : lane];
}

inline unsigned char* shared_memory() { return Machine::current()->shared(); }
template <class T>
void shared_add(T* to, T value) {
  *to += value;
}
inline float exp2_fast(float x) { return std::exp2(x); }

inline void copy16_async(void* to, const void* from, bool valid) {
  Machine::current()->copy_later(to, from, valid);
}
inline void copies_done() { Machine::current()->copies_done(); }

inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  Machine::current()->check(row, 16, "ldmatrix from");
  const auto rows = Machine::current()->exchange(row);
  const unsigned lane = thread() % 32;
  for (unsigned i = 0; i < 4; ++i) {
    std::memcpy(&to[i], static_cast<const char*>(rows[8 * i + lane / 4]) + lane % 4 * 4, 4);
  }
}
inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
  Machine::current()->check(row, 16, "ldmatrix from");
  const auto rows = Machine::current()->exchange(row);
  const unsigned lane = thread() % 32;
  for (unsigned i = 0; i < 4; ++i) {
    std::uint16_t elements[2];
    for (unsigned half = 0; half < 2; ++half) {
      const void* at = rows[8 * i + lane % 4 * 2 + half];
      std::memcpy(&elements[half], static_cast<const char*>(at) + lane / 4 * 2, 2);
    }
    std::memcpy(&to[i], elements, 4);
  }
}

struct MatrixOperands {
  std::uint32_t a[4];
  std::uint32_t b[2];
};
template <class T>
float half_of(std::uint32_t bits, unsigned half) {
  T value;
  const auto element = static_cast<std::uint16_t>(bits >> (16 * half));
  std::memcpy(static_cast<void*>(&value), &element, 2);
  return static_cast<float>(value);
}
template <class T>
void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                  std::uint32_t b1) {
  MatrixOperands mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const auto all = Machine::current()->exchange(mine);
  const unsigned lane = thread() % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8;
    const unsigned column = lane % 4 * 2 + i % 2;
    float product = 0.0f;
    for (unsigned k = 0; k < 16; ++k) {
      const MatrixOperands& of_a = all[row % 8 * 4 + k % 8 / 2];
      const MatrixOperands& of_b = all[column * 4 + k % 8 / 2];
      product += half_of<T>(of_a.a[row / 8 + k / 8 * 2], k % 2) * half_of<T>(of_b.b[k / 8], k % 2);
    }
    sum[i] += product;
  }
}

}  // namespace penstock::model::simt
