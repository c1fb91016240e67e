#include "model/ops/product_cpu.hpp"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "model/ops/convert.hpp"

namespace penstock::model {
namespace {

using Type = dnnl::memory::data_type;

constexpr std::size_t kSliceColumns = 128;

MatmulShape matmul_shape(const LinearShape& shape, const ProductMode& mode, bool widen,
                         std::size_t columns, int threads) {
  const auto type = [widen](io::DType dtype) {
    return dtype == io::DType::f32 || widen ? Type::f32 : Type::bf16;
  };
  MatmulShape result;
  result.in_features = shape.in_features;
  result.columns = columns;
  result.in = type(shape.dtype);
  result.out = type(shape.out_dtype);
  result.bias = shape.bias;
  result.threads = mode.sliced || mode.single_thread ? 1 : threads;
  return result;
}

void grow(HostBuffer& buffer, std::size_t size_bytes, int threads, const char* purpose) {
  if (buffer.size_bytes() < size_bytes) buffer = HostBuffer(size_bytes, threads, purpose);
}

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

std::size_t row_bucket(std::size_t rows) {
  if (rows <= 8) return rows;
  if (rows <= 32) return round_up(rows, 4);
  if (rows <= 64) return round_up(rows, 8);
  if (rows <= 128) return round_up(rows, 16);
  return std::min(kMaxCallRows, round_up(rows, 32));
}

std::size_t product_padded_rows(std::size_t rows) {
  const std::size_t whole = rows / kMaxCallRows * kMaxCallRows;
  return std::max(whole + row_bucket(rows - whole), round_up(rows, kTileRows));
}

std::size_t distinct_slice_columns(std::size_t columns) {
  return columns < kSliceColumns ? columns : kSliceColumns + columns % kSliceColumns;
}

ProductWorkspace::ProductWorkspace(int thread_count) : engine(dnnl::engine::kind::cpu, 0) {
  for (int i = 0; i < thread_count; ++i) threads.push_back({dnnl::stream(engine), {}, {}, {}});
}

Product::Product(ProductWorkspace& workspace, const LinearShape& shape, const ProductMode& mode,
                 bool widen)
    : workspace_(&workspace),
      shape_(shape),
      mode_(mode),
      widen_(widen),
      in_bytes_(widen ? sizeof(float) : io::size_of(shape.dtype)),
      out_bytes_(widen ? sizeof(float) : io::size_of(shape.out_dtype)),
      columns_(mode.sliced ? std::min(kSliceColumns, shape.out_features) : shape.out_features),
      matmul_(workspace.engine, matmul_shape(shape, mode, widen, columns_,
                                             static_cast<int>(workspace.threads.size()))) {
  if (shape.out_features % columns_ != 0) {
    last_.emplace(workspace.engine,
                  matmul_shape(shape, mode, widen, shape.out_features % columns_, 1));
  }
  const std::size_t elements =
      std::max(matmul_.packed_bytes(), last_ ? last_->packed_bytes() : 0) / in_bytes_;
  packed_bytes_ = round_up(elements * io::size_of(shape.dtype), 64);
  for (auto& thread : workspace.threads) {
    if (mode.sliced) grow(thread.out, kMaxCallRows * columns_ * out_bytes_, 1, "a slice of rows");
  }
  if (!widen_) return;
  const auto threads = static_cast<int>(workspace.threads.size());
  const std::size_t rows = product_padded_rows(std::max(shape.max_rows, kTileRows));
  grow(workspace.in, rows * shape.in_features * sizeof(float), threads, "f32 activations");
  for (auto& thread : workspace.threads) {
    grow(thread.weight, elements * sizeof(float), 1, "a slice of f32 weights");
  }
}

std::size_t Product::slices() const { return (shape_.out_features + columns_ - 1) / columns_; }

std::size_t Product::slice_columns(std::size_t slice) const {
  return std::min(columns_, shape_.out_features - slice * columns_);
}

const Matmul& Product::slice_matmul(std::size_t slice) const {
  return last_ && slice + 1 == slices() ? *last_ : matmul_;
}

Product::Weight Product::pack(const void* plain, const float* bias) const {
  const auto threads = static_cast<int>(workspace_->threads.size());
  const OmpThreads scope(threads);  // for oneDNN's reorder
  dnnl::stream& stream = workspace_->threads[0].stream;
  Weight weight;
  weight.packed = HostBuffer(slices() * packed_bytes_, threads, "weights");
  if (bias != nullptr) {
    weight.bias = HostBuffer(shape_.out_features * sizeof(float), 1, "a bias");
    std::memcpy(weight.bias.data(), bias, shape_.out_features * sizeof(float));
  }
  HostBuffer wide_plain;
  HostBuffer wide_packed;
  if (widen_) {
    wide_plain = HostBuffer(columns_ * shape_.in_features * sizeof(float), 1, "packing");
    wide_packed = HostBuffer(workspace_->threads[0].weight.size_bytes(), 1, "packing");
  }
  for (std::size_t slice = 0; slice < slices(); ++slice) {
    const Matmul& matmul = slice_matmul(slice);
    const std::size_t stored = shape_.in_features * io::size_of(shape_.dtype);
    const std::byte* from = static_cast<const std::byte*>(plain) + slice * columns_ * stored;
    std::byte* to = weight.packed.data() + slice * packed_bytes_;
    if (widen_) {
      widen(reinterpret_cast<const std::uint16_t*>(from), slice_columns(slice) * shape_.in_features,
            wide_plain.as<float>());
      matmul.pack(wide_plain.data(), matmul.packed_memory(wide_packed.data()), stream);
      narrow(wide_packed.as<float>(), matmul.packed_bytes() / sizeof(float),
             reinterpret_cast<std::uint16_t*>(to));
    } else {
      weight.slices.push_back(matmul.packed_memory(to));
      matmul.pack(from, weight.slices.back(), stream);
    }
  }
  return weight;
}

void Product::plan_calls(std::size_t rows) {
  calls_.clear();
  const std::size_t most = mode_.tile_rows == 0 ? kMaxCallRows : mode_.tile_rows;
  for (std::size_t first = 0; first < rows; first += most) {
    const std::size_t left = std::min(most, rows - first);
    calls_.push_back({first, mode_.tile_rows == 0 ? row_bucket(left) : mode_.tile_rows});
    matmul_.create(calls_.back().rows);
    if (last_) last_->create(calls_.back().rows);
  }
  const std::size_t scratch = std::max(matmul_.scratch_bytes(), last_ ? last_->scratch_bytes() : 0);
  for (auto& thread : workspace_->threads) grow(thread.scratch, scratch, 1, "oneDNN's scratchpad");
}

void Product::widen_rows(std::size_t rows, const void* in) const {
  const auto* from = static_cast<const std::uint16_t*>(in);
  float* to = workspace_->in.as<float>();
  const std::size_t width = shape_.in_features;
  const auto threads = static_cast<int>(workspace_->threads.size());
  const auto count = static_cast<std::ptrdiff_t>(rows);
#pragma omp parallel for schedule(static) num_threads(threads) if (count > 4)
  for (std::ptrdiff_t row = 0; row < count; ++row) {
    const std::size_t at = static_cast<std::size_t>(row) * width;
    widen(from + at, width, to + at);
  }
}

void Product::run_whole(const Weight& weight, const std::byte* in, std::byte* out) const {
  const auto threads = static_cast<int>(workspace_->threads.size());
  const OmpThreads scope(mode_.single_thread ? 1 : threads);
  const ProductWorkspace::Thread& thread = workspace_->threads[0];
  for (const Call& call : calls_) {
    matmul_.run(call.rows, in + call.first * shape_.in_features * in_bytes_, weight.slices[0],
                weight.bias.data(), out + call.first * shape_.out_features * out_bytes_,
                thread.scratch.data(), thread.stream);
  }
}

void Product::run_slice(const Weight& weight, std::size_t slice, std::size_t rows,
                        const std::byte* in, std::byte* out,
                        ProductWorkspace::Thread& thread) const {
  const Matmul& matmul = slice_matmul(slice);
  dnnl::memory packed;
  if (widen_) {
    const std::byte* stored = weight.packed.data() + slice * packed_bytes_;
    widen(reinterpret_cast<const std::uint16_t*>(stored), matmul.packed_bytes() / sizeof(float),
          thread.weight.as<float>());
    packed = matmul.packed_memory(thread.weight.data());
  } else {
    packed = weight.slices[slice];
  }
  const std::size_t first_column = slice * columns_;
  const std::size_t columns = slice_columns(slice);
  const std::size_t element = io::size_of(shape_.out_dtype);
  const float* bias = shape_.bias ? weight.bias.as<float>() + first_column : nullptr;
  for (const Call& call : calls_) {
    matmul.run(call.rows, in + call.first * shape_.in_features * in_bytes_, packed, bias,
               thread.out.data(), thread.scratch.data(), thread.stream);
    for (std::size_t row = call.first; row < std::min(rows, call.first + call.rows); ++row) {
      const std::byte* from = thread.out.data() + (row - call.first) * columns * out_bytes_;
      std::byte* to = out + (row * shape_.out_features + first_column) * element;
      if (out_bytes_ == element) {
        std::memcpy(to, from, columns * element);
      } else {
        narrow(reinterpret_cast<const float*>(from), columns, reinterpret_cast<std::uint16_t*>(to));
      }
    }
  }
}

void Product::apply(const Weight& weight, std::size_t rows, const void* in, void* out) {
  plan_calls(rows);
  const auto* from = static_cast<const std::byte*>(in);
  auto* to = static_cast<std::byte*>(out);
  if (widen_) {
    widen_rows(rows, in);
    from = workspace_->in.data();
  }
  if (!mode_.sliced) return run_whole(weight, from, to);
  std::exception_ptr failure;
  const auto threads = static_cast<int>(workspace_->threads.size());
  const auto count = static_cast<std::ptrdiff_t>(slices());
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::ptrdiff_t slice = 0; slice < count; ++slice) {
    try {
      const auto thread = static_cast<std::size_t>(omp_get_thread_num());
      const OmpThreads scope(1);
      run_slice(weight, static_cast<std::size_t>(slice), rows, from, to,
                workspace_->threads[thread]);
    } catch (...) {
#pragma omp critical(penstock_product_failure)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace penstock::model
