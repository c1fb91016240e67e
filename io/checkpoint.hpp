#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/dtype.hpp"

// The HDF5 checkpoint, schema 1. README.md beside this file describes the format.
namespace penstock::io {

// An attribute of /config, or of the root.
using Attribute = std::variant<std::int64_t, double, std::string>;
struct NamedAttribute {
  std::string name;
  Attribute value;
};

// A byte array under /tokenizer: a tokenizer's own file, the chat template, ….
struct Blob {
  std::string name;  // "tokenizer.json", "chat_template", "generation_config.json", …
  std::string bytes;
};

struct TensorSpec {
  std::string name;  // "/layers/0003/attn/q"
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;  // row-major
};

// Everything in a checkpoint but the weights.
struct CheckpointHeader {
  std::string architecture;   // "llama"
  std::string source;         // where it was converted from, for people
  std::string created_by;     // "penstock 0.1.0"
  DType dtype = DType::bf16;  // of the matrices
  bool no_data = false;       // shapes only
  std::vector<NamedAttribute> config;
  std::string config_text;  // the source's own config, JSON
  std::vector<Blob> tokenizer;
};

// Blocks of this many bytes of a tensor carry a checksum (XXH3-128) each.
inline constexpr std::uint64_t kChecksumBlockBytes = 4u << 20;

// Writes DST under a temporary name in the same folder; finish() flushes and renames. A writer
// destroyed before finish() removes the temporary file. Throws FileError.
class CheckpointWriter {
 public:
  // All tensors are declared up front, in the model's order; they lie in the file in that order.
  CheckpointWriter(std::string path, const CheckpointHeader& header,
                   const std::vector<TensorSpec>& tensors);
  ~CheckpointWriter();
  CheckpointWriter(CheckpointWriter&&) noexcept;
  CheckpointWriter& operator=(CheckpointWriter&&) noexcept;

  // Appends bytes to a tensor, already in its dtype. Each tensor is written front to back.
  void append(std::size_t tensor, std::span<const std::byte> bytes);
  // Fails when a tensor is not complete (unless no_data).
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct TensorInfo : TensorSpec {
  std::uint64_t size_bytes = 0;
  std::string file;          // the file that holds the bytes
  std::uint64_t offset = 0;  // of the first byte in that file
};

// Opens a checkpoint read-only and checks all of its structure before anything is allocated on
// the file's word. Reading is thread-safe; the rest is const.
class CheckpointReader {
 public:
  // `without_tokenizer`: header().tokenizer stays empty and the digest, which covers it, is taken
  // as the file says it. For the many stages that need weights only, beside one that checks all.
  enum class Contents { all, without_tokenizer };
  explicit CheckpointReader(std::string path, Contents contents = Contents::all);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;
  CheckpointReader& operator=(CheckpointReader&&) noexcept;

  const std::string& path() const;
  const CheckpointHeader& header() const;
  const std::vector<TensorInfo>& tensors() const;       // in file order
  const TensorInfo* find(std::string_view name) const;  // nullptr if absent
  std::uint64_t size_bytes() const;                     // of all files
  // Digest of all tensors' names, types, shapes and block checksums, of config and tokenizer;
  // hexadecimal. Reads no weights.
  std::string digest() const;

  // Reads a whole tensor; out.size() must be its size_bytes. Every block's checksum is verified;
  // a mismatch is a FileError that names tensor and block. Large reads use `threads` threads.
  void read(const TensorInfo& tensor, std::span<std::byte> out, int threads = 1) const;

  // Reads out.size() bytes of a tensor from `first_byte` on, whole checksum blocks: first_byte is a
  // multiple of kChecksumBlockBytes, and so is the end unless it is the tensor's. As read() else.
  void read_range(const TensorInfo& tensor, std::uint64_t first_byte, std::span<std::byte> out,
                  int threads = 1) const;

  // Recomputes every checksum with bounded memory. Returns one line for each broken block.
  // `progress` is called with bytes done so far.
  std::vector<std::string> verify(
      const std::function<void(std::uint64_t bytes_done)>& progress) const;

  // Bytes of tensor data read by this object so far.
  std::uint64_t bytes_read() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock::io
