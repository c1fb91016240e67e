#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/temporary_folder.hpp"

// Starts the program as a user does, alone or by mpirun, and looks at what it leaves behind.
namespace penstock::tests {

using Arguments = std::vector<std::string>;

inline const std::string kEmbeddedModel =
    std::string(PENSTOCK_SOURCE_DIR) + "/jobs/embedded/austen-1m.h5";

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

inline std::vector<nlohmann::json> read_rows(const std::string& path) {
  std::vector<nlohmann::json> rows;
  for (const std::string& line : lines_of(read_bytes(path))) {
    rows.push_back(nlohmann::json::parse(line));
  }
  return rows;
}

struct Finished {
  int code = -1;   // -1: it did not end by itself
  int signal = 0;  // that ended it
  bool hung = false;
  std::string out;
  std::string err;

  // The program's own messages, without what mpirun adds.
  std::vector<std::string> errors() const {
    std::vector<std::string> found;
    for (const std::string& line : lines_of(err)) {
      if (line.starts_with("penstock: error:")) found.push_back(line);
    }
    return found;
  }
};

// For GoogleTest's messages.
inline std::ostream& operator<<(std::ostream& out, const Finished& finished) {
  return out << "exit code " << finished.code << ", signal " << finished.signal
             << (finished.hung ? ", hung" : "") << "\nstandard output:\n"
             << finished.out << "\nstandard error:\n"
             << finished.err;
}

// A command at work. One that is not waited for is killed.
class Process {
 public:
  // `in`: a descriptor for its standard input.
  Process(const Arguments& command, int in) {
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_addopen(&files, 1, out_.c_str(), O_CREAT | O_WRONLY, 0600);
    posix_spawn_file_actions_addopen(&files, 2, err_.c_str(), O_CREAT | O_WRONLY, 0600);
    std::vector<char*> argv;
    for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 1);  // no daemon for a program without mpirun
    const int failed = posix_spawn(&pid_, argv[0], &files, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    if (failed != 0) throw std::runtime_error(command[0] + " cannot be started");
  }
  ~Process() {
    if (ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const {
    if (!ended_) kill(pid_, number);
  }
  // What it wrote so far.
  std::string err() const { return read_bytes(err_); }

  bool ended() {
    ended_ = ended_ || waitpid(pid_, &status_, WNOHANG) != 0;
    return ended_;
  }
  // Waits until `condition`, or until the end of the process or a minute: false.
  template <class Condition>
  bool reaches(const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!condition()) {
      if (ended() || std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return !ended();
  }
  // Its end. One that takes longer than `limit` is ended.
  Finished wait(std::chrono::seconds limit = std::chrono::seconds(120)) {
    Finished finished;
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!ended()) {
      if (std::chrono::steady_clock::now() > deadline) {
        finished.hung = true;
        kill(pid_, SIGTERM);  // mpirun ends its ranks
        std::this_thread::sleep_for(std::chrono::seconds(2));
        kill(pid_, SIGKILL);
        waitpid(pid_, &status_, 0);
        ended_ = true;
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    if (!finished.hung && WIFEXITED(status_)) finished.code = WEXITSTATUS(status_);
    if (WIFSIGNALED(status_)) finished.signal = WTERMSIG(status_);
    finished.out = read_bytes(out_);
    finished.err = read_bytes(err_);
    return finished;
  }

 private:
  const TemporaryFolder workplace_;
  const std::string out_ = workplace_.write("out", "");
  const std::string err_ = workplace_.write("err", "");
  pid_t pid_ = 0;
  int status_ = 0;
  bool ended_ = false;
};

// Runs a command with `input` as its standard input. One that takes longer than `limit` is ended.
inline Finished start(const Arguments& command, const std::string& input = "",
                      std::chrono::seconds limit = std::chrono::seconds(120)) {
  const TemporaryFolder workplace;
  const int in = ::open(workplace.write("in", input).c_str(), O_RDONLY | O_CLOEXEC);
  Process process(command, in);
  ::close(in);
  return process.wait(limit);
}

inline Finished penstock(Arguments arguments, const std::string& input = "") {
  arguments.insert(arguments.begin(), PENSTOCK_PROGRAM);
  return start(arguments, input);
}

#ifdef PENSTOCK_TEST_MPIRUN
inline Arguments by_mpirun(int ranks, const Arguments& arguments) {
  Arguments command;
  std::istringstream mpirun(PENSTOCK_TEST_MPIRUN);
  for (std::string word; mpirun >> word;) command.push_back(word);
  command.push_back(std::to_string(ranks));
  command.emplace_back(PENSTOCK_PROGRAM);
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

inline Finished penstock_ranks(int ranks, const Arguments& arguments,
                               std::chrono::seconds limit = std::chrono::seconds(120)) {
  return start(by_mpirun(ranks, arguments), "", limit);
}
#endif

inline Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A config.json for penstock synth: tiny, with `layers` layers and a context of 64 tokens.
inline nlohmann::json tiny_llama_config(int layers) {
  return {{"model_type", "llama"},    {"hidden_size", 64},
          {"intermediate_size", 96},  {"num_hidden_layers", layers},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"vocab_size", 300},        {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},     {"rope_theta", 10000.0}};
}

// Makes a checkpoint of random weights from it.
inline std::string synthesize(const TemporaryFolder& workplace, int layers) {
  const std::string config = workplace.write("config-" + std::to_string(layers) + ".json",
                                             tiny_llama_config(layers).dump());
  const std::string path = workplace / ("synth-" + std::to_string(layers) + ".h5");
  const Finished made = penstock({"synth", config, path});
  EXPECT_EQ(made.code, 0) << made;
  return path;
}

}  // namespace penstock::tests
