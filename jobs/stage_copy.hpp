#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "io/checkpoint_slice.hpp"
#include "model/stage.hpp"

namespace penstock::jobs {

// A stage's part of the checkpoint in a folder of its node (--stage-dir): there from an earlier
// job, or copied now.
class StageCopy {
 public:
  // Finds the copy or makes it. `checkpoint` and `tensors` must outlive this. Throws io::FileError.
  StageCopy(const io::CheckpointReader& checkpoint, std::span<const io::TensorInfo* const> tensors,
            const std::string& folder, int threads, const model::LoadProgress& progress);

  // Calls `load` with the copy. One that turns out damaged is removed, and `load` is called again
  // with the checkpoint.
  void load(const std::function<void(const io::CheckpointReader&)>& load);

  std::uint64_t bytes_copied() const { return bytes_copied_; }
  const std::string& note() const { return note_; }        // "copied to DIR in 3.1 s"
  const std::string& warning() const { return warning_; }  // empty: all went well

 private:
  void give_up(const std::string& damage);

  const io::CheckpointReader* checkpoint_;
  io::CheckpointSlice slice_;
  std::optional<io::CheckpointReader> copy_;
  std::uint64_t bytes_copied_ = 0;
  std::string note_;
  std::string warning_;
};

}  // namespace penstock::jobs
