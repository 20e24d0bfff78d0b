// What kernels have in common: numbers of bfloat16.
//
// Without a device's compiler, a host's can read this: each kernel is a function of its place, or two with a barrier
// between them, which tests call for one place after another.

#ifndef NCT_PACKED_CUH
#define NCT_PACKED_CUH

#include "place.h"

#ifdef __CUDACC_RTC__
#define ON_DEVICE __device__ __forceinline__
#else
#define ON_DEVICE inline
#endif

namespace nct {

// Eight numbers of bfloat16.
struct alignas(16) Packed {
  unsigned pair[PACK / 2];
};

struct alignas(16) Values {
  float at[PACK];
};

ON_DEVICE float as_float(unsigned bits) {
#ifdef __CUDACC_RTC__
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

ON_DEVICE Values unpacked(const Packed& packed) {
  Values values;
#pragma unroll
  for (unsigned i = 0; i < PACK / 2; ++i) {
    values.at[2 * i] = as_float(packed.pair[i] << 16);
    values.at[2 * i + 1] = as_float(packed.pair[i] & 0xffff0000u);
  }
  return values;
}

// Two numbers rounded to the nearest, ties to even.
ON_DEVICE unsigned rounded(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  const auto one = [](float value) {
    unsigned bits;
#ifdef __CUDACC_RTC__
    bits = __float_as_uint(value);
#else
    __builtin_memcpy(&bits, &value, sizeof bits);
#endif
    return value != value ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  };
  return one(low) | one(high) << 16;
#endif
}

ON_DEVICE Packed packed(const Values& values) {
  Packed result;
#pragma unroll
  for (unsigned i = 0; i < PACK / 2; ++i) result.pair[i] = rounded(values.at[2 * i], values.at[2 * i + 1]);
  return result;
}

} // namespace nct

#ifdef __CUDACC_RTC__
#define PLACE nct::Place{threadIdx.x, blockIdx.x, blockIdx.y, gridDim.x}
#define OVER_MAP extern "C" __global__ __launch_bounds__(nct::THREADS) void
#define IN_TWO_STEPS(kernel, name, Told, Between, first, second) \
  kernel name(const nct::Told task) {                            \
    __shared__ nct::Between between;                             \
    first(task, PLACE, between);                                 \
    __syncthreads();                                             \
    second(task, PLACE, between);                                \
  }
#endif

#endif
