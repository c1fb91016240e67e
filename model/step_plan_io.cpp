#include "model/step_plan_io.hpp"

#include <cstring>
#include <type_traits>

#include "model/error.hpp"

namespace penstock::model {
namespace {

// Numbers only: a struct's padding and its bools must not travel as they lie in memory.
class Writer {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) { put_bytes(&value, sizeof value); }
  void put(bool value) { put(static_cast<std::uint8_t>(value ? 1 : 0)); }
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(const std::vector<T>& values) {
    put_count(values.size());
    put_bytes(values.data(), values.size() * sizeof(T));
  }
  void put_count(std::size_t count) { put(static_cast<std::uint64_t>(count)); }
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
  requires std::is_arithmetic_v<T>
  void get(T& value) { get_bytes(&value, sizeof value); }
  void get(bool& value) {
    std::uint8_t byte = 0;
    get(byte);
    if (byte > 1) throw ModelError("a step plan has a flag that is neither 0 nor 1");
    value = byte == 1;
  }
  template <class T>
  requires std::is_arithmetic_v<T>
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

// The fields of each struct, named once for both directions.
template <class Step, class Visit>
void visit_sequence(Step& s, const Visit& visit) {
  visit(s.sequence);
  visit(s.first_row);
  visit(s.rows);
  visit(s.position);
  visit(s.first_block);
  visit(s.blocks);
  visit(s.sample);
}
constexpr std::size_t kSequenceBytes = 6 * sizeof(std::uint32_t) + 1;

template <class Admitted, class Visit>
void visit_admission(Admitted& a, const Visit& visit) {
  visit(a.sequence);
  visit(a.record);
  visit(a.sampling.temperature);
  visit(a.sampling.top_k);
  visit(a.sampling.top_p);
  visit(a.sampling.min_p);
  visit(a.sampling.repetition_penalty);
  visit(a.sampling.presence_penalty);
  visit(a.sampling.frequency_penalty);
  visit(a.sampling.seed);
  visit(a.prompt_tokens);
  visit(a.tokens);
}
// Without its tokens.
constexpr std::size_t kAdmissionBytes = 9 * sizeof(std::uint32_t) + 3 * sizeof(std::uint64_t);

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
  const auto put = [&](const auto& field) { out.put(field); };
  put(plan.step);
  put(plan.slot);
  put(plan.draining);
  put(plan.tokens);
  out.put_count(plan.sequences.size());
  for (const SequenceStep& s : plan.sequences) visit_sequence(s, put);
  put(plan.block_table);
  put(plan.retired);
  out.put_count(plan.admitted.size());
  for (const Admission& a : plan.admitted) visit_admission(a, put);
  return out.take();
}

StepPlan deserialize(std::span<const std::byte> bytes) {
  Reader in(bytes);
  const auto get = [&](auto& field) { in.get(field); };
  StepPlan plan;
  get(plan.step);
  get(plan.slot);
  get(plan.draining);
  get(plan.tokens);
  plan.sequences.resize(in.count(kSequenceBytes));
  for (SequenceStep& s : plan.sequences) visit_sequence(s, get);
  get(plan.block_table);
  get(plan.retired);
  plan.admitted.resize(in.count(kAdmissionBytes));
  for (Admission& a : plan.admitted) visit_admission(a, get);
  if (!in.at_end()) throw ModelError("a step plan has bytes behind its end");
  check(plan);
  return plan;
}

}  // namespace penstock::model
