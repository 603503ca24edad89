// AVX-512 with VNNI: Intel from Ice Lake on, AMD from Zen 4 on.
#include "ops.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,avx2")
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,avx2"))), \
                             apply_to = function)
#endif

namespace diffcode {
namespace avx512 {

// The intrinsic makes GCC copy every accumulator twice and spill half of them (half of a tile's time).
inline void dot(__m512i& sum, __m512i weights, __m512i bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(bytes));
}

// MR rows times 32 outputs. vpdpbusd multiplies unsigned by signed bytes, so the weights are the unsigned side: the
// rows' bytes can then be broadcast four at a time. The sums over groups live in memory on purpose: kept in registers
// they would push out the 24 accumulators of the inner loop.
template <int MR>
inline void tile(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  const int inputs = linear.inputs, groups = inputs / linear.group, quads = linear.group / 4;
  const uint8_t* w = linear.weights + static_cast<size_t>(block) * inputs * kBlock;
  const float* scales = linear.scales + static_cast<size_t>(block) * groups * kBlock;
  const int8_t* x = rows.values + static_cast<size_t>(row) * inputs;
  const float* row_scales = rows.scales + static_cast<size_t>(row) * groups;
  const int32_t* offsets = rows.offsets + static_cast<size_t>(row) * groups;
  alignas(64) float sums[MR][kBlock];
  for (int r = 0; r < MR; r++) {
    _mm512_store_ps(sums[r], _mm512_setzero_ps());
    _mm512_store_ps(sums[r] + 16, _mm512_setzero_ps());
  }
  for (int g = 0; g < groups; g++) {
    asm volatile("" ::: "memory");
    __m512i dots[MR][2];
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) dots[r][0] = dots[r][1] = _mm512_set1_epi32(offsets[r * groups + g]);
    for (int k = 0; k < quads; k++) {
      const __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 64);
      _mm_prefetch(reinterpret_cast<const char*>(w) + 16384, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(w) + 16448, _MM_HINT_T0);
      w += 128;
#pragma GCC unroll 12
      for (int r = 0; r < MR; r++) {
        int32_t four;
        __builtin_memcpy(&four, x + r * 4, 4);
        const __m512i bytes = _mm512_set1_epi32(four);
        dot(dots[r][0], low, bytes);
        dot(dots[r][1], high, bytes);
      }
      x += MR * 4;
    }
    asm volatile("" ::: "memory");
    const __m512 low_scale = _mm512_loadu_ps(scales + g * kBlock), high_scale = _mm512_loadu_ps(scales + g * kBlock + 16);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      const __m512 mine = _mm512_set1_ps(row_scales[r * groups + g]);
      const __m512 first = _mm512_cvtepi32_ps(dots[r][0]), second = _mm512_cvtepi32_ps(dots[r][1]);
      _mm512_store_ps(sums[r], _mm512_fmadd_ps(first, _mm512_mul_ps(low_scale, mine), _mm512_load_ps(sums[r])));
      _mm512_store_ps(sums[r] + 16, _mm512_fmadd_ps(second, _mm512_mul_ps(high_scale, mine), _mm512_load_ps(sums[r] + 16)));
    }
  }
  for (int r = 0; r < MR; r++) {
    float* to = y + (row + r) * stride + static_cast<size_t>(block) * kBlock;
    for (int i = 0; i < kBlock; i += 16) {
      __m512 value = _mm512_load_ps(sums[r] + i);
      if (linear.bias != nullptr) value = _mm512_add_ps(value, _mm512_loadu_ps(linear.bias + block * kBlock + i));
      if (add) value = _mm512_add_ps(value, _mm512_loadu_ps(to + i));
      _mm512_storeu_ps(to + i, value);
    }
  }
}

int64_t spin(int rounds) {
  __m512i sums[24];
#pragma GCC unroll 24
  for (int s = 0; s < 24; s++) sums[s] = _mm512_setzero_si512();
  const __m512i weights = _mm512_set1_epi8(3), bytes = _mm512_set1_epi8(5);
  for (int i = 0; i < rounds; i++) {
#pragma GCC unroll 24
    for (int s = 0; s < 24; s++) dot(sums[s], weights, bytes);
  }
#pragma GCC unroll 24
  for (int s = 0; s < 24; s++) asm volatile("" ::"v"(sums[s]));
  return static_cast<int64_t>(rounds) * 24 * 64 * 2;
}

#include "ops.inl"

const Ops table = {"avx512", rms_norm, quantise, linear, rotate, silu_product, attend, head, spin, walk};

}  // namespace avx512

#if defined(__clang__)
#pragma clang attribute pop
#endif
#pragma GCC pop_options

const Ops* ops_avx512() {
  __builtin_cpu_init();
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vnni");
  return has ? &avx512::table : nullptr;
}
}  // namespace diffcode
#else
namespace diffcode {
const Ops* ops_avx512() { return nullptr; }
}  // namespace diffcode
#endif
