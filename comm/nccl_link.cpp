#include "comm/nccl_link.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "comm/device/error.hpp"
#include "comm/error.hpp"
#include "comm/nccl_edges.hpp"
#include "comm/nccl_warm_up.hpp"
#include "comm/topology.hpp"

namespace penstock::comm {
namespace {

// TCP over a fast Ethernet gives 1 to 3 GB/s for one connection; PCIe, InfiniBand and NVLink 10 to
// 400.
constexpr double kSlowBytesPerSecond = 4e9;
// The first one that aborts and destroys the communicators of a group together.
constexpr int kLeastVersion = 22203;

class NcclSender final : public LinkSender {
 public:
  explicit NcclSender(std::shared_ptr<NcclEdges> edges) : edges_(std::move(edges)) {}
  Ticket send(std::span<const std::byte> bytes) override {
    // A send only reads.
    return edge().post(NcclOperation::send, const_cast<std::byte*>(bytes.data()), bytes.size());
  }
  bool done(Ticket ticket) override { return edge().done(ticket); }
  void progress() override { edge().progress(); }
  void set_compute_stream(void* stream) override { edge().set_compute_stream(stream); }
  bool order_compute_after(Ticket ticket) override { return edge().order_compute_after(ticket); }
  void abort() noexcept override { edges_->abort(); }

 private:
  NcclEdge& edge() const { return *edges_->next; }
  std::shared_ptr<NcclEdges> edges_;
};

class NcclReceiver final : public LinkReceiver {
 public:
  explicit NcclReceiver(std::shared_ptr<NcclEdges> edges) : edges_(std::move(edges)) {}
  Ticket receive(std::span<std::byte> bytes) override {
    return edge().post(NcclOperation::receive, bytes.data(), bytes.size());
  }
  bool done(Ticket ticket) override { return edge().done(ticket); }
  void progress() override { edge().progress(); }
  void set_compute_stream(void* stream) override { edge().set_compute_stream(stream); }
  bool order_compute_after(Ticket ticket) override { return edge().order_compute_after(ticket); }
  void abort() noexcept override { edges_->abort(); }

 private:
  NcclEdge& edge() const { return *edges_->previous; }
  std::shared_ptr<NcclEdges> edges_;
};

std::string to_text(const NcclAnnouncement& announcement) {
  return std::string(announcement.id.data(), announcement.id.size()) +
         fmt::format("{}\n{}\n{}\n{}\n{}", announcement.version, announcement.gpu_uuid,
                     announcement.pci_bus_id, announcement.host_id, announcement.error);
}

NcclAnnouncement parse_announcement(const std::string& text) {
  NcclAnnouncement announcement;
  if (text.size() < announcement.id.size()) throw CommError("an NCCL announcement is cut short");
  std::memcpy(announcement.id.data(), text.data(), announcement.id.size());
  std::istringstream stream(text.substr(announcement.id.size()));
  stream >> announcement.version;
  stream.ignore();
  std::getline(stream, announcement.gpu_uuid);
  std::getline(stream, announcement.pci_bus_id);
  std::getline(stream, announcement.host_id);
  std::getline(stream, announcement.error, '\0');
  return announcement;
}

std::string refusal_of_pair(const NcclAnnouncement& one, const NcclAnnouncement& other,
                            const std::string& member, const std::string& other_member,
                            bool neighbours) {
  if (one.gpu_uuid == other.gpu_uuid && one.host_id == other.host_id) {
    return fmt::format(
        "{} and {} have the same GPU ({}), and NCCL wants one for each: start as many ranks on a "
        "node as it has GPUs, or use --link mpi. For tests only, ranks with different NCCL_HOSTID "
        "in their environment pass for different hosts, connected by sockets",
        member, other_member, one.gpu_uuid);
  }
  // NCCL goes by the bus. Only neighbours share a communicator.
  if (neighbours && one.pci_bus_id == other.pci_bus_id && one.host_id == other.host_id) {
    return fmt::format(
        "{} and {} have MIG slices of one GPU ({} and {}), which NCCL cannot connect: use --link "
        "mpi, or give neighbouring ranks slices of different GPUs",
        member, other_member, one.gpu_uuid, other.gpu_uuid);
  }
  // The last member has none, which is all zeros.
  if (one.id == other.id && other.id != NcclId{}) {
    return fmt::format(
        "NCCL gave {} and {} the same id, as it does where NCCL_COMM_ID is in the environment: "
        "unset it",
        member, other_member);
  }
  return "";
}

class Setup {
 public:
  Setup(Control& control, std::shared_ptr<NcclApi> api, const NcclOptions& options)
      : control_(control),
        api_(std::move(api)),
        options_(options),
        edges_(std::make_shared<NcclEdges>(api_, options.close_timeout)) {}

  NcclLinks run() {
    exchange_announcements();
    Outcome mine;
    const Clock::time_point start = Clock::now();
    try {
      for (const int parity : {0, 1}) connect(parity, mine.report);
    } catch (const CommError& e) {
      mine.error = e.what();
      mine.failed_after = Clock::now() - start;
      // So that the other end of a connection that is being made need not wait for its time-out.
      edges_->abort();
    }
    NcclLinks links;
    links.edges = agree(mine);
    if (has_previous()) links.previous = std::make_unique<NcclReceiver>(edges_);
    if (has_next()) links.next = std::make_unique<NcclSender>(edges_);
    return links;
  }

 private:
  struct Outcome {
    NcclSpeed report;  // of the edge to the next member
    std::string error;
    Clock::duration failed_after{};
  };

  int member() const { return control_.member(); }
  bool has_previous() const { return member() > 0; }
  bool has_next() const { return member() + 1 < control_.size(); }

  NcclAnnouncement announce() {
    NcclAnnouncement mine;
    mine.gpu_uuid = options_.gpu_uuid;
    mine.pci_bus_id = options_.pci_bus_id;
    mine.host_id = options_.host_id;
    NcclResult result = api_->get_version(mine.version);
    if (result == NcclResult::success && has_next()) result = api_->get_unique_id(mine.id);
    if (result != NcclResult::success) {
      mine.error =
          fmt::format("{}; {}", api_->get_error_string(result), api_->get_last_error(nullptr));
    }
    return mine;
  }

  void exchange_announcements() {
    const std::vector<std::string> texts =
        control_.all_gather(to_text(announce()), "NCCL ids", options_.setup_timeout);
    std::vector<NcclAnnouncement> announcements;
    std::vector<std::string> members;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      announcements.push_back(parse_announcement(texts[i]));
      members.push_back(control_.describe(static_cast<int>(i)));
      ids_.push_back(announcements.back().id);
    }
    if (const std::string text = nccl_refusal(announcements, members); !text.empty()) {
      throw AgreeError(text, member() == 0);
    }
  }

  void connect(int parity, NcclSpeed& report) {
    if (has_next() && member() % 2 == parity) {
      report = make_edge(edges_->next, member(), 0);
    }
    if (has_previous() && (member() - 1) % 2 == parity) {
      make_edge(edges_->previous, member() - 1, 1);
    }
  }

  NcclSpeed make_edge(std::unique_ptr<NcclEdge>& edge, int from, int rank) {
    auto name =
        fmt::format("edge from {} to {}", control_.describe(from), control_.describe(from + 1));
    edge = std::make_unique<NcclEdge>(api_, edges_->turn(), std::move(name), rank,
                                      options_.stall_timeout);
    edge->connect(ids_[static_cast<std::size_t>(from)], options_.setup_timeout);
    return warm_up(*api_, *edge, rank, options_.warm_up_bytes, options_.setup_timeout);
  }

  // The failure that came first is the one to tell: the others follow from it.
  std::vector<NcclEdgeReport> agree(const Outcome& mine) {
    const double failed_after = std::chrono::duration<double>(mine.failed_after).count();
    const std::string text = fmt::format("{} {} {}\n{}", mine.report.bytes_per_s,
                                         mine.report.hop_us, failed_after, mine.error);
    // A member that waits for messages that do not come is late by both phases' time-outs.
    const std::vector<std::string> texts =
        control_.all_gather(text, "the NCCL links", 6 * options_.setup_timeout);
    std::vector<NcclEdgeReport> reports;
    std::string first_error;
    double first_after = 0.0;
    int first_member = 0;
    for (int i = 0; i < control_.size(); ++i) {
      std::istringstream stream(texts[static_cast<std::size_t>(i)]);
      NcclEdgeReport report;
      report.from = i;
      double after = 0.0;
      std::string error;
      stream >> report.bytes_per_s >> report.hop_us >> after;
      stream.ignore();
      std::getline(stream, error, '\0');
      if (i + 1 < control_.size()) reports.push_back(report);
      if (error.empty() || (!first_error.empty() && after >= first_after)) continue;
      first_error = error;
      first_after = after;
      first_member = i;
    }
    if (!first_error.empty()) {
      throw AgreeError(fmt::format("{} (told by {})", first_error, control_.describe(first_member)),
                       member() == first_member);
    }
    return reports;
  }

  Control& control_;
  std::shared_ptr<NcclApi> api_;
  const NcclOptions& options_;
  std::shared_ptr<NcclEdges> edges_;
  std::vector<NcclId> ids_;  // [size]
};

}  // namespace

std::string nccl_host_id() {
  const char* text = std::getenv("NCCL_HOSTID");
  return text == nullptr ? host_name() : text;
}

std::string describe(const NcclEdgeReport& report) {
  return fmt::format("edge {} to {}: NCCL, {:.1f} GB/s, {:.0f} us a hop", report.from,
                     report.from + 1, report.bytes_per_s / 1e9, report.hop_us);
}

std::string slow_edge_warning(const NcclEdgeReport& report) {
  if (report.bytes_per_s >= kSlowBytesPerSecond) return "";
  return fmt::format(
      "the edge from stage {} to {} moves {:.2f} GB/s, as TCP sockets do; PCIe, InfiniBand and "
      "NVLink give 10 to 400. NCCL_DEBUG=INFO in the environment shows what NCCL uses and why",
      report.from, report.from + 1, report.bytes_per_s / 1e9);
}

std::string nccl_refusal(const std::vector<NcclAnnouncement>& announcements,
                         const std::vector<std::string>& members) {
  for (std::size_t i = 0; i < announcements.size(); ++i) {
    if (!announcements[i].error.empty()) {
      return fmt::format("NCCL does not start on {}: {}", members[i], announcements[i].error);
    }
    if (announcements[i].version < kLeastVersion) {
      return fmt::format("{} has NCCL {}, at least {} is needed", members[i],
                         nccl_version_text(announcements[i].version),
                         nccl_version_text(kLeastVersion));
    }
  }
  for (std::size_t i = 0; i + 1 < announcements.size(); ++i) {
    const NcclAnnouncement& one = announcements[i];
    const NcclAnnouncement& other = announcements[i + 1];
    if (one.version != other.version) {
      return fmt::format("{} has NCCL {}, {} has {}: all ranks need the same", members[i],
                         nccl_version_text(one.version), members[i + 1],
                         nccl_version_text(other.version));
    }
  }
  for (std::size_t i = 0; i < announcements.size(); ++i) {
    for (std::size_t j = i + 1; j < announcements.size(); ++j) {
      const std::string text =
          refusal_of_pair(announcements[i], announcements[j], members[i], members[j], j == i + 1);
      if (!text.empty()) return text;
    }
  }
  return "";
}

NcclLinks connect_nccl(Control& control, std::shared_ptr<NcclApi> api, const NcclOptions& options) {
  return Setup(control, std::move(api), options).run();
}

}  // namespace penstock::comm
