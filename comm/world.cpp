#include "comm/world.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "comm/call_deadline.hpp"
#include "comm/error.hpp"
#include "comm/topology.hpp"

namespace penstock::comm {
namespace {

// MPI waits for all ranks at its start, which takes its time where there are thousands, and at its
// end, when all of them have said farewell already.
constexpr std::chrono::minutes kEndTime{1};

std::vector<std::string> gather_hosts(const std::string& host, int size, MPI_Comm communicator) {
  std::array<char, 256> mine{};
  std::memcpy(mine.data(), host.data(), std::min(host.size(), mine.size() - 1));
  std::vector<char> all(mine.size() * static_cast<std::size_t>(size));
  PENSTOCK_MPI(MPI_Allgather(mine.data(), static_cast<int>(mine.size()), MPI_CHAR, all.data(),
                             static_cast<int>(mine.size()), MPI_CHAR, communicator));
  std::vector<std::string> hosts;
  for (std::size_t i = 0; i < all.size(); i += mine.size()) hosts.emplace_back(&all[i]);
  return hosts;
}

int environment_count(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return 0;
  int count = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, count);
  return error == std::errc() && stop == end && count > 0 ? count : 0;
}

}  // namespace

void check_mpi(int code, const char* call, const char* file, int line) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  const std::string_view words(text.data(), static_cast<std::size_t>(length));
  throw CommError(fmt::format("MPI: {} ({}, {}:{})", words.empty() ? "unknown error" : words, call,
                              file, line));
}

World::World(int* argc, char*** argv, std::chrono::seconds start_time)
    : exceptions_(std::uncaught_exceptions()) {
  int initialized = 0;
  PENSTOCK_MPI(MPI_Initialized(&initialized));
  if (initialized != 0) throw CommError("MPI is initialized already: a process has one World");
  int provided = MPI_THREAD_SINGLE;
  const CallDeadline deadline("the start of MPI (host " + host_name() + ")", start_time);
  PENSTOCK_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
  if (provided < MPI_THREAD_FUNNELED) {
    MPI_Finalize();
    throw CommError(
        "this MPI library allows no threads beside the one that communicates "
        "(MPI_THREAD_FUNNELED); use one that is built with thread support");
  }
  // Duplicates inherit the handler; calls without a communicator use the world's.
  PENSTOCK_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  PENSTOCK_MPI(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN));
  PENSTOCK_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &communicator_));
  PENSTOCK_MPI(MPI_Comm_rank(communicator_, &rank_));
  PENSTOCK_MPI(MPI_Comm_size(communicator_, &size_));

  MPI_Comm node = MPI_COMM_NULL;
  PENSTOCK_MPI(
      MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node));
  PENSTOCK_MPI(MPI_Comm_rank(node, &node_rank_));
  PENSTOCK_MPI(MPI_Comm_size(node, &node_size_));
  PENSTOCK_MPI(MPI_Comm_free(&node));
  hosts_ = gather_hosts(host_name(), size_, communicator_);
}

World::~World() {
  // Finalize waits for peers, which may wait for this rank.
  if (std::uncaught_exceptions() > exceptions_) MPI_Abort(communicator_, EXIT_FAILURE);
  const CallDeadline deadline(fmt::format("MPI_Finalize (rank {}, host {})", rank_, host()),
                              kEndTime);
  MPI_Comm_free(&communicator_);
  MPI_Finalize();
}

int World::launched_size() {
  // The launcher nearest to the process counts: mpirun inside a Slurm job may start fewer ranks
  // than the job has tasks. SLURM_NTASKS is also set in batch scripts, where nothing was launched.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (const int count = environment_count(name); count > 0) return count;
  }
  return 0;
}

void World::abort(int code) const {
  MPI_Abort(communicator_, code);
  std::_Exit(code);
}

}  // namespace penstock::comm
