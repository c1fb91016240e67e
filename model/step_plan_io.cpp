#include "model/step_plan_io.hpp"

#include <cstring>
#include <type_traits>

#include "model/error.hpp"

namespace penstock::model {
namespace {

// Plain structs are written field by field of their in-memory form: both ends are one program.
static_assert(std::is_trivially_copyable_v<SequenceStep>);
static_assert(std::is_trivially_copyable_v<SamplingParams>);

class Writer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    put_bytes(&value, sizeof value);
  }
  template <class T>
  void put(const std::vector<T>& values) {
    put(static_cast<std::uint64_t>(values.size()));
    put_bytes(values.data(), values.size() * sizeof(T));
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  void put_bytes(const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), first, first + size);
  }
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  void get(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    get_bytes(&value, sizeof value);
  }
  template <class T>
  void get(std::vector<T>& values) {
    values.resize(count(sizeof(T)));
    get_bytes(values.data(), values.size() * sizeof(T));
  }
  // A count of things of at least `least_size` bytes each: never more than the bytes left.
  std::size_t count(std::size_t least_size) {
    std::uint64_t n = 0;
    get(n);
    if (n > bytes_.size() / least_size) throw ModelError("a step plan is cut short");
    return static_cast<std::size_t>(n);
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  void get_bytes(void* data, std::size_t size) {
    if (size > bytes_.size()) throw ModelError("a step plan is cut short");
    if (size > 0) std::memcpy(data, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }
  std::span<const std::byte> bytes_;
};

void check(const StepPlan& plan) {
  std::uint64_t row = 0;
  for (const SequenceStep& s : plan.sequences) {
    if (s.first_row != row || s.rows == 0) throw ModelError("a step plan's rows have gaps");
    row += s.rows;
    const std::uint64_t end = std::uint64_t{s.position} + s.rows;
    if (s.blocks != (end + kKvBlockTokens - 1) / kKvBlockTokens ||
        std::uint64_t{s.first_block} + s.blocks > plan.block_table.size()) {
      throw ModelError("a step plan's block table does not fit its sequences");
    }
  }
  if (row != plan.tokens.size()) throw ModelError("a step plan's rows and tokens differ");
  for (const Admission& a : plan.admitted) {
    if (a.prompt_tokens > a.tokens.size()) {
      throw ModelError("a step plan admits a sequence shorter than its prompt");
    }
  }
}

}  // namespace

std::vector<std::byte> serialize(const StepPlan& plan) {
  Writer out;
  out.put(plan.step);
  out.put(plan.slot);
  out.put(plan.draining);
  out.put(plan.tokens);
  out.put(plan.sequences);
  out.put(plan.block_table);
  out.put(plan.retired);
  out.put(static_cast<std::uint64_t>(plan.admitted.size()));
  for (const Admission& a : plan.admitted) {
    out.put(a.sequence);
    out.put(a.record);
    out.put(a.sampling);
    out.put(a.prompt_tokens);
    out.put(a.tokens);
  }
  return out.take();
}

StepPlan deserialize(std::span<const std::byte> bytes) {
  Reader in(bytes);
  StepPlan plan;
  in.get(plan.step);
  in.get(plan.slot);
  std::uint8_t draining = 0;
  in.get(draining);
  plan.draining = draining != 0;
  in.get(plan.tokens);
  in.get(plan.sequences);
  in.get(plan.block_table);
  in.get(plan.retired);
  plan.admitted.resize(in.count(sizeof(std::uint64_t) * 2));
  for (Admission& a : plan.admitted) {
    in.get(a.sequence);
    in.get(a.record);
    in.get(a.sampling);
    in.get(a.prompt_tokens);
    in.get(a.tokens);
  }
  if (!in.at_end()) throw ModelError("a step plan has bytes behind its end");
  check(plan);
  return plan;
}

}  // namespace penstock::model
