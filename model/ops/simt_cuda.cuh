#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// What kernels need of a CUDA thread. Kernels are written in terms of these alone, so that tests
// run the very same source on a CPU: tests/support/simt.hpp defines them there. A file that
// includes a kernel (*_kernel.cuh) includes one of the two first.
//
// Sources: PTX ISA 8.5, "Warp-level matrix instructions" (mma.m16n8k16, ldmatrix) and "cp.async".
namespace penstock::model::simt {

__device__ inline unsigned thread() { return threadIdx.x; }
__device__ inline unsigned threads() { return blockDim.x; }
__device__ inline unsigned block_x() { return blockIdx.x; }
__device__ inline unsigned block_y() { return blockIdx.y; }
__device__ inline unsigned blocks_x() { return gridDim.x; }

// Of all threads of a block, of all lanes of a warp.
__device__ inline void barrier() { __syncthreads(); }

template <class T>
__device__ T shuffle(T value, unsigned lane) {
  return __shfl_sync(0xFFFFFFFFu, value, static_cast<int>(lane));
}
template <class T>
__device__ T shuffle_xor(T value, unsigned mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, static_cast<int>(mask));
}
// Of the lane `delta` below; lanes without one get their own.
template <class T>
__device__ T shuffle_up(T value, unsigned delta) {
  return __shfl_up_sync(0xFFFFFFFFu, value, delta);
}

// The block's memory, as large as the launch says, aligned to 16 bytes.
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

__device__ inline void shared_add(std::uint32_t* to, std::uint32_t value) { atomicAdd(to, value); }
__device__ inline void shared_add(unsigned long long* to, unsigned long long value) {
  atomicAdd(to, value);
}

// 2^x with an error of at most 2 ulp; 0 for minus infinity.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes to shared memory, in the background; zeros when not `valid`, and nothing is read.
// Both addresses are multiples of 16.
__device__ inline void copy16_async(void* to, const void* from, bool valid) {
  const int size = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(size)
               : "memory");
}
// Waits for all copies of this thread. Other threads see them behind a barrier.
__device__ inline void copies_done() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}

// Four 8 x 8 matrices of 16-bit elements: lane 8 i + j gives the address of row j of matrix i.
// Lane l gets of matrix i the elements (l / 4, 2 (l % 4)) and the one behind it; `transposed`: of
// the transposed matrix.
__device__ inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// sum += a * b with a [16, 16] and b [16, 8]. Of a, lane l holds in registers 0, 1, 2, 3 the rows
// l / 4, l / 4 + 8, l / 4, l / 4 + 8 at columns 2 (l % 4) (+ 8 for 2 and 3) and the one behind;
// of b the rows 2 (l % 4) and the one behind (+ 8 for register 1) at column l / 4; of the sums the
// rows l / 4 (0, 1) and l / 4 + 8 (2, 3) at columns 2 (l % 4) and the one behind.
template <class T>
__device__ void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                             std::uint32_t b1);
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&sum)[4], const std::uint32_t (&a)[4],
                                                   std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply_add<__half>(float (&sum)[4], const std::uint32_t (&a)[4],
                                            std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace penstock::model::simt
