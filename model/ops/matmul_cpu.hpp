#pragma once

#include <cstddef>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>

namespace penstock::model {

// Whether oneDNN computes with all of `level` on this machine.
bool onednn_has(dnnl_cpu_isa_t level);

// Whether it multiplies bf16 itself. Below AVX-512 BF16 it emulates it, or refuses it.
inline bool multiplies_bf16() { return onednn_has(dnnl_cpu_isa_avx512_core_bf16); }

// Sets the calling thread's number of OpenMP threads, which oneDNN reads when it makes and runs a
// primitive, for as long as it lives.
class OmpThreads {
 public:
  explicit OmpThreads(int threads);
  ~OmpThreads();
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int before_ = 1;
};

struct MatmulShape {
  std::size_t in_features = 0;
  std::size_t columns = 0;                                    // of out
  dnnl::memory::data_type in = dnnl::memory::data_type::f32;  // and of the weight
  dnnl::memory::data_type out = dnnl::memory::data_type::f32;
  bool bias = false;  // f32
  int threads = 1;
};

// oneDNN's matrix product out [rows, columns] = in [rows, in_features] * weight + bias for one
// shape: a primitive for each number of rows, all of which read the weight in one packed layout.
// Throws ModelError in oneDNN's words.
class Matmul {
 public:
  Matmul(const dnnl::engine& engine, const MatmulShape& shape);

  // Makes the primitive for `rows` rows unless it is there. Not thread-safe; run() is.
  void create(std::size_t rows);

  // Whether every primitive so far is oneDNN's batch-reduce code, whose kernels for all numbers of
  // rows sum alike. Its older code picks another order for many a number, where samples prove
  // nothing.
  bool batch_reduce() const { return batch_reduce_; }
  std::size_t packed_bytes() const { return packed_.get_size(); }
  std::size_t scratch_bytes() const { return scratch_bytes_; }  // the largest of those created
  dnnl::memory packed_memory(void* packed) const { return {packed_, engine_, packed}; }
  // `plain` is [columns, in_features], dense, in dtype `in`.
  void pack(const void* plain, const dnnl::memory& packed, dnnl::stream& stream) const;

  void run(std::size_t rows, const void* in, const dnnl::memory& packed, const void* bias,
           void* out, void* scratch, const dnnl::stream& stream) const;

 private:
  struct Primitive {
    dnnl::matmul matmul;
    dnnl::memory::desc in, out, scratch;
  };
  dnnl::memory::desc weight(dnnl::memory::format_tag tag) const;

  dnnl::engine engine_;
  MatmulShape shape_;
  dnnl::memory::desc packed_;  // chosen by oneDNN for the first primitive
  dnnl::memory::desc bias_;
  std::size_t scratch_bytes_ = 0;
  bool batch_reduce_ = true;
  std::map<std::size_t, Primitive> primitives_;
};

}  // namespace penstock::model
