#include "model/ops/matmul_cpu.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using dnnl::memory;

// The layout is chosen for a batch of middle size; oneDNN 2.6 reads it at every size.
constexpr std::size_t kLayoutRows = 64;

memory::dim dim(std::size_t value) { return static_cast<memory::dim>(value); }

}  // namespace

bool onednn_has(dnnl_cpu_isa_t level) { return (dnnl_get_effective_cpu_isa() & level) == level; }

OmpThreads::OmpThreads(int threads) : before_(omp_get_max_threads()) {
  omp_set_num_threads(threads);
}
OmpThreads::~OmpThreads() { omp_set_num_threads(before_); }

Matmul::Matmul(const dnnl::engine& engine, const MatmulShape& shape)
    : engine_(engine),
      shape_(shape),
      packed_(weight(memory::format_tag::any)),
      bias_({1, dim(shape.columns)}, memory::data_type::f32, memory::format_tag::ab) {
  create(kLayoutRows);
}

memory::desc Matmul::weight(memory::format_tag tag) const {
  return {{dim(shape_.in_features), dim(shape_.columns)}, shape_.in, tag};
}

void Matmul::create(std::size_t rows) {
  if (primitives_.contains(rows)) return;
  const OmpThreads threads(shape_.threads);
  const memory::desc in({dim(rows), dim(shape_.in_features)}, shape_.in, memory::format_tag::ab);
  const memory::desc out({dim(rows), dim(shape_.columns)}, shape_.out, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  try {
    const dnnl::matmul::desc description = shape_.bias ? dnnl::matmul::desc(in, packed_, bias_, out)
                                                       : dnnl::matmul::desc(in, packed_, out);
    const dnnl::matmul::primitive_desc chosen(description, attributes, engine_);
    packed_ = chosen.weights_desc();
    scratch_bytes_ = std::max(scratch_bytes_, chosen.scratchpad_desc().get_size());
    batch_reduce_ = batch_reduce_ && std::string_view(chosen.impl_info_str()).starts_with("brg");
    primitives_.emplace(rows, Primitive{dnnl::matmul(chosen), in, out, chosen.scratchpad_desc()});
  } catch (const dnnl::error& error) {
    throw ModelError(fmt::format("oneDNN has no product of {} x {} by {} x {}: {}", rows,
                                 shape_.in_features, shape_.in_features, shape_.columns,
                                 error.what()));
  }
}

void Matmul::pack(const void* plain, const memory& packed, dnnl::stream& stream) const {
  // oneDNN takes data to be read as non-const too.
  memory from(weight(memory::format_tag::ba), engine_, const_cast<void*>(plain));
  memory to = packed;
  dnnl::reorder(from, to).execute(stream, from, to);
  stream.wait();
}

void Matmul::run(std::size_t rows, const void* in, const memory& packed, const void* bias,
                 void* out, void* scratch, const dnnl::stream& stream) const {
  const Primitive& primitive = primitives_.at(rows);
  const memory in_memory(primitive.in, engine_, const_cast<void*>(in));
  const memory out_memory(primitive.out, engine_, out);
  const memory scratch_memory(primitive.scratch, engine_, scratch);
  memory bias_memory;
  std::array<dnnl_exec_arg_t, 5> arguments{{{DNNL_ARG_SRC, in_memory.get()},
                                            {DNNL_ARG_WEIGHTS, packed.get()},
                                            {DNNL_ARG_DST, out_memory.get()},
                                            {DNNL_ARG_SCRATCHPAD, scratch_memory.get()},
                                            {}}};
  int count = 4;
  if (shape_.bias) {
    bias_memory = memory(bias_, engine_, const_cast<void*>(bias));
    arguments[4] = {DNNL_ARG_BIAS, bias_memory.get()};
    count = 5;
  }
  const dnnl_status_t status =
      dnnl_primitive_execute(primitive.matmul.get(), stream.get(), count, arguments.data());
  if (status != dnnl_success) {
    throw ModelError(fmt::format("oneDNN failed in a product of {} x {} by {} x {}: status {}",
                                 rows, shape_.in_features, shape_.in_features, shape_.columns,
                                 static_cast<int>(status)));
  }
}

}  // namespace penstock::model
