#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"

namespace penstock::io {

// Bytes [first, end) of a file.
struct ByteRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  bool operator==(const ByteRange&) const = default;
};

// A copy of some tensors of a checkpoint in a folder of this node, kept from job to job: a sparse
// file of the checkpoint's size that holds the same bytes at the same offsets, namely all before
// the first tensor (structure, checksums, tokenizer) and the chosen tensors; the rest are holes. So
// it is opened and verified as any checkpoint. Its name tells the user's number, the checkpoint's
// digest, and the first and last byte of the tensors. Several processes may copy, open and remove
// the same one at the same time.
class CheckpointSlice {
 public:
  // `checkpoint` and `tensors` (of it, at least one) must outlive this. Throws FileError for a
  // checkpoint of several files.
  CheckpointSlice(const CheckpointReader& checkpoint, std::span<const TensorInfo* const> tensors,
                  const std::string& folder);

  const std::string& path() const { return path_; }
  // In order; neighbours with nothing but alignment between them are one range.
  const std::vector<ByteRange>& ranges() const { return ranges_; }
  std::uint64_t size_bytes() const { return size_bytes_; }  // of all ranges

  // The copy, if it is there and its structure is whole and this checkpoint's. One that is not is
  // removed, and `damage` says why (else it is empty). Throws FileError where the name is taken by
  // what is not a file of this user: others could change it.
  std::optional<CheckpointReader> open(std::string& damage) const;

  // Makes the folder and the copy. The space for all of it is taken first; it appears under its
  // name when it is whole, and an end before that leaves nothing behind where the file system has
  // files without names (O_TMPFILE; else PATH.0123abcd.tmp, which a kill leaves). It is not synced.
  // `progress` is called in this thread. Throws FileError: a full disk with what is needed and
  // free.
  void copy(int threads,
            const std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_total)>&
                progress) const;

  // If it is there.
  void remove() const;

 private:
  const CheckpointReader* checkpoint_;
  std::string folder_;
  std::string path_;
  std::vector<ByteRange> ranges_;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace penstock::io
