// How a world ends: started on 2 ranks by world_end_test.cpp with the name of an ending.

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "comm/error.hpp"
#include "comm/mpi.hpp"

namespace {

using namespace penstock::comm;

// Like a rank that hangs in a file system or a driver: it neither comes nor ends.
[[noreturn]] void hang() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

void unwind(int* argc, char*** argv) {
  const World world(argc, argv);
  const Endpoint endpoint = mpi_endpoint(world);
  if (world.rank() == 0) hang();
  throw std::runtime_error("thrown");
}

int end(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "unwind") == 0) {
    try {
      unwind(&argc, &argv);
    } catch (const std::exception&) {
      std::puts("caught too late");
    }
    return 0;
  }

  const World world(&argc, &argv);
  const Endpoint endpoint = mpi_endpoint(world);
  if (argc == 2 && std::strcmp(argv[1], "abort") == 0) {
    if (world.rank() == 1) world.abort(7);
    hang();
  }
  if (argc == 2 && std::strcmp(argv[1], "hang") == 0) {
    if (world.rank() == 1) hang();
    try {
      endpoint.control->all_gather("", "the plan", std::chrono::milliseconds(300));
    } catch (const CommError& error) {
      std::puts(error.what());
      std::fflush(stdout);
      world.abort(3);
    }
  }
  if (argc == 2 && std::strcmp(argv[1], "last-words") == 0 && endpoint.next) {
    // Large enough to need the receiver, which is slow; the sender leaves at once.
    endpoint.control->send(1, std::vector<std::byte>(10000000));
  } else if (argc == 2 && std::strcmp(argv[1], "last-words") == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    for (;;) {
      if (const auto message = endpoint.control->try_receive()) {
        fmt::print("{} bytes from rank {}\n", message->bytes.size(), message->from);
        break;
      }
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return end(argc, argv); }
