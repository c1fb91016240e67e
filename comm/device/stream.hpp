#pragma once

namespace penstock::comm::device {

// Owners of CUDA's handles, made on the calling thread's current GPU (use_gpu()). Move-only; a
// default-made or moved-from one is empty. Used by one thread. Destructors do not wait for the work
// that was given to the GPU.

class Event;

// Does not wait for the default stream, nor the default stream for it.
class Stream {
 public:
  // `urgent`: its kernels go first where several streams have some ready.
  enum class Priority { normal, urgent };

  Stream() = default;
  static Stream create(Priority priority = Priority::normal);
  ~Stream() { reset(); }
  Stream(Stream&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Stream& operator=(Stream&& other) noexcept;

  explicit operator bool() const { return handle_ != nullptr; }
  void* get() const { return handle_; }  // a cudaStream_t

  // What is put on this stream from now on waits for the work that `event` stands for now.
  void wait(const Event& event) const;
  bool idle() const;
  void synchronize() const;  // blocks

 private:
  void reset() noexcept;
  void* handle_ = nullptr;
};

// A point in a stream. Before the first record() it counts as reached.
class Event {
 public:
  Event() = default;
  // One that can tell times costs a little more.
  static Event create(bool timing = false);
  ~Event() { reset(); }
  Event(Event&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Event& operator=(Event&& other) noexcept;

  explicit operator bool() const { return handle_ != nullptr; }
  void* get() const { return handle_; }  // a cudaEvent_t

  void record(const Stream& stream) { record(stream.get()); }
  void record(void* stream);  // a cudaStream_t
  bool done() const;          // never blocks
  void synchronize() const;   // blocks

 private:
  void reset() noexcept;
  void* handle_ = nullptr;
};

// Milliseconds of GPU time between two events that are done and were created with timing.
float elapsed_ms(const Event& from, const Event& to);

}  // namespace penstock::comm::device
