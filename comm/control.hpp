#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::comm {

struct ControlMessage {
  int from = 0;
  std::vector<std::byte> bytes;
};

// Small host messages between the stages of one pipeline; member i is stage i. Messages of one
// sender arrive in order. Each member is used by one thread.
class Control {
 public:
  virtual ~Control() = default;
  virtual int member() const = 0;
  virtual int size() const = 0;
  // "rank 5, host n042" or "thread 2": who a member is, for messages.
  virtual std::string describe(int member) const = 0;

  // Buffered: returns at once. Any size up to 2^31 - 1 bytes.
  virtual void send(int to, std::span<const std::byte> bytes) = 0;
  // The next message, if one has arrived. Never blocks.
  virtual std::optional<ControlMessage> try_receive() = 0;
  // Lets sends complete; cheap.
  virtual void progress() = 0;

  // Collectives over all members: setup and end of a run only. All poll, with a deadline that
  // names who has not come. They must be called by all members in the same order, with no
  // messages under way.
  virtual std::vector<std::string> all_gather(std::string_view bytes, std::string_view what,
                                              std::chrono::milliseconds timeout) = 0;

  // Collective. Returns if all members are ok; else throws AgreeError with the text of the lowest
  // member that is not.
  void agree(bool ok, std::string_view text, std::string_view what,
             std::chrono::milliseconds timeout);
};

}  // namespace penstock::comm
