#pragma once

#include <stdexcept>

namespace penstock::comm::device {

// A call of the CUDA runtime that failed, or a GPU that cannot be had. what() holds CUDA's words,
// the call, file and line. CUDA reports some failures of kernels only at a later call.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws DeviceError unless `code`, a cudaError_t, is cudaSuccess.
void check_cuda(int code, const char* call, const char* file, int line);
// The same for the answer of cudaEventQuery or cudaStreamQuery: false for cudaErrorNotReady, which
// is no failure and is not left behind for the next cudaGetLastError().
bool check_query(int code, const char* call, const char* file, int line);

}  // namespace penstock::comm::device

// For files that see CUDA. Behind a kernel launch: PENSTOCK_CUDA_CALL(cudaGetLastError()).
#define PENSTOCK_CUDA_CALL(call) \
  ::penstock::comm::device::check_cuda(static_cast<int>(call), #call, __FILE__, __LINE__)
