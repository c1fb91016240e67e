#pragma once

#include <mpi.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::comm {

// MPI for this process: initialized FUNNELED with MPI_ERRORS_RETURN by the constructor, finalized
// by the destructor (which does not wait for peers while an exception unwinds: it aborts all ranks
// then, so an exception that is to be reported, or that all ranks have agreed on, must be caught
// while the object lives). One object per process, used by the main thread. Endpoints made from it
// must be destroyed before it. Works without a launcher: a world of one rank.
class World {
 public:
  // A rank that is not there after `start_time` ends the start, with a message.
  World(int* argc, char*** argv, std::chrono::seconds start_time = std::chrono::minutes(10));
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int node_rank() const { return node_rank_; }  // among the ranks of this host
  int node_size() const { return node_size_; }
  const std::string& host() const { return host(rank_); }
  const std::string& host(int rank) const { return hosts_[static_cast<std::size_t>(rank)]; }
  MPI_Comm communicator() const { return communicator_; }  // our own duplicate

  // How many ranks the launcher says there are (OMPI_COMM_WORLD_SIZE, PMI_SIZE, or a Slurm step's
  // SLURM_STEP_NUM_TASKS); 0 if it says nothing. Larger than size(): every rank was started as a
  // world of its own.
  static int launched_size();

  // Prints nothing; ends all ranks with `code`.
  [[noreturn]] void abort(int code) const;

 private:
  int rank_ = 0;
  int size_ = 1;
  int node_rank_ = 0;
  int node_size_ = 1;
  std::vector<std::string> hosts_;  // [size_]
  int exceptions_ = 0;              // under way when this object was made
  MPI_Comm communicator_ = MPI_COMM_NULL;
};

// Throws CommError with MPI's words, the call, file and line, unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call, const char* file, int line);
#define PENSTOCK_MPI(call) ::penstock::comm::check_mpi((call), #call, __FILE__, __LINE__)

}  // namespace penstock::comm
