#include "comm/device/stream.hpp"
#include "model/device_activations.hpp"
#include "model/stage_idle.hpp"

namespace penstock::model {
namespace {

using comm::device::Event;
using comm::device::Stream;

class IdleCudaStage : public IdleStage {
 public:
  explicit IdleCudaStage(std::size_t row_bytes)
      : IdleStage(row_bytes), stream_(Stream::create()), done_(Event::create()) {}

  std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<DeviceActivations>(bytes);
  }
  void* compute_stream() const override { return stream_.get(); }
  // The stream waits for `in`, so the step is done when that is here.
  void forward(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    IdleStage::forward(plan, in, out, progress);
    done_.record(stream_);
  }
  bool ready() override { return done_.done(); }

 private:
  Stream stream_;
  Event done_;
};

}  // namespace

std::unique_ptr<Stage> make_idle_cuda_stage(std::size_t row_bytes) {
  return std::make_unique<IdleCudaStage>(row_bytes);
}

}  // namespace penstock::model
