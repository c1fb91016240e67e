#pragma once

#include <cstddef>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/ops/host_buffer.hpp"
#include "model/ops/linear.hpp"
#include "model/ops/matmul_cpu.hpp"

namespace penstock::model {

// Rows of a call where all calls must have the same number.
inline constexpr std::size_t kTileRows = 16;

// How a product is cut into oneDNN calls.
struct ProductMode {
  // false: one call for all columns, oneDNN's own threads.
  // true: slices of columns, a thread each, so that threads cannot matter.
  bool sliced = false;
  // Rows of every call, at most kTileRows; 0: any number out of row_bucket's.
  std::size_t tile_rows = 0;
  // Not sliced, and oneDNN is given one thread.
  bool single_thread = false;
};

// Numbers of rows for which primitives are made: `rows` rounded up so that few primitives serve all
// steps and little is computed in vain. At most kMaxCallRows.
std::size_t row_bucket(std::size_t rows);
inline constexpr std::size_t kMaxCallRows = 256;

// Rows that a product of `rows` rows may read and write, in any mode.
std::size_t product_padded_rows(std::size_t rows);

// Columns of a product that has a slice of each width that one of `columns` columns is cut into.
std::size_t distinct_slice_columns(std::size_t columns);

// What products need while they run, shared by all of a stage.
struct ProductWorkspace {
  explicit ProductWorkspace(int threads);
  struct Thread {
    dnnl::stream stream;
    HostBuffer scratch;  // oneDNN's
    HostBuffer weight;   // a slice, widened to f32
    HostBuffer out;      // one call's rows of a slice: oneDNN's fast code wants dense rows
  };
  dnnl::engine engine;
  std::vector<Thread> threads;
  HostBuffer in;  // widened to f32
};

// The code of a product of one shape in one mode. With `widen`, bf16 tensors are multiplied in f32:
// weights stay bf16 in memory, in the packed f32 layout, and a slice at a time is widened.
class Product {
 public:
  Product(ProductWorkspace& workspace, const LinearShape& shape, const ProductMode& mode,
          bool widen);

  struct Weight {
    HostBuffer packed;
    HostBuffer bias;
    std::vector<dnnl::memory> slices;  // views of `packed`; none when widened
  };
  Weight pack(const void* plain, const float* bias) const;

  void apply(const Weight& weight, std::size_t rows, const void* in, void* out);

  const ProductMode& mode() const { return mode_; }
  // Of the primitives made so far; see Matmul.
  bool batch_reduce() const { return matmul_.batch_reduce() && (!last_ || last_->batch_reduce()); }

 private:
  struct Call {
    std::size_t first = 0;
    std::size_t rows = 0;
  };
  std::size_t slices() const;
  std::size_t slice_columns(std::size_t slice) const;
  const Matmul& slice_matmul(std::size_t slice) const;
  void plan_calls(std::size_t rows);
  void widen_rows(std::size_t rows, const void* in) const;
  void run_whole(const Weight& weight, const std::byte* in, std::byte* out) const;
  void run_slice(const Weight& weight, std::size_t slice, std::size_t rows, const std::byte* in,
                 std::byte* out, ProductWorkspace::Thread& thread) const;

  ProductWorkspace* workspace_;
  LinearShape shape_;
  ProductMode mode_;
  bool widen_;
  std::size_t in_bytes_ = 0;      // of an element as oneDNN sees it
  std::size_t out_bytes_ = 0;     // likewise
  std::size_t columns_ = 0;       // of a slice
  std::size_t packed_bytes_ = 0;  // of a slice as it is stored
  Matmul matmul_;
  std::optional<Matmul> last_;  // of the last slice, when it is narrower
  std::vector<Call> calls_;
};

}  // namespace penstock::model
