#include "jobs/stage_copy.hpp"

#include <fmt/format.h>

#include <chrono>

#include "io/error.hpp"
#include "jobs/report.hpp"
#include "jobs/stage_context.hpp"

namespace penstock::jobs {

StageCopy::StageCopy(const io::CheckpointReader& checkpoint,
                     std::span<const io::TensorInfo* const> tensors, const std::string& folder,
                     int threads, const model::LoadProgress& progress)
    : checkpoint_(&checkpoint), slice_(checkpoint, tensors, folder) {
  std::string damage;
  copy_ = slice_.open(damage);
  if (copy_) {
    note_ = "found in " + folder;
    return;
  }
  if (!damage.empty()) warning_ = damage + "; the copy was removed and is made again";
  const Ledger::Time begin = steady_now();
  slice_.copy(threads, progress);
  bytes_copied_ = slice_.size_bytes();
  note_ = fmt::format("copied to {} in {}", folder,
                      format_duration(std::chrono::duration<double>(steady_now() - begin).count()));
  copy_ = slice_.open(damage);
  if (!copy_) give_up(damage.empty() ? slice_.path() + ": is gone again" : damage);
}

void StageCopy::load(const std::function<void(const io::CheckpointReader&)>& load) {
  if (copy_) {
    try {
      load(*copy_);
      return;
    } catch (const io::FileError& error) {
      slice_.remove();
      give_up(error.what());
    }
  }
  load(*checkpoint_);
}

void StageCopy::give_up(const std::string& damage) {
  copy_.reset();
  note_.clear();
  warning_ = damage + "; the copy was removed, the checkpoint itself is read";
}

}  // namespace penstock::jobs
