// AVX2: every x86 processor since about 2015. Products of bytes go by way of 16 bits, which no value overflows.
#include "ops.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#endif

namespace diffcode {
namespace avx2 {

// Eight outputs at a time: [8][4] weight bytes as two registers of 16-bit numbers.
template <int MR>
inline void tile(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  const int inputs = linear.inputs, groups = inputs / linear.group, quads = linear.group / 4;
  const size_t first = static_cast<size_t>(block) * kBlock;
  const int8_t* x = rows.values + static_cast<size_t>(row) * inputs;
  for (int part = 0; part < kBlock / 8; part++) {
    const uint8_t* w = linear.weights + first * inputs + part * 32;
    const float* scales = linear.scales + first * groups + part * 8;
    __m256 sums[MR];
    for (int r = 0; r < MR; r++) sums[r] = _mm256_setzero_ps();
    for (int g = 0; g < groups; g++) {
      __m256i dots[MR][2];  // pairs of outputs 0-3 and 4-7, two sums an output
      for (int r = 0; r < MR; r++) dots[r][0] = dots[r][1] = _mm256_setzero_si256();
      for (int k = 0; k < quads; k++) {
        const __m128i* from = reinterpret_cast<const __m128i*>(w);
        const __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128(from));
        const __m256i high = _mm256_cvtepu8_epi16(_mm_loadu_si128(from + 1));
        w += kBlock * 4;
        for (int r = 0; r < MR; r++) {
          int32_t four;
          __builtin_memcpy(&four, x + (static_cast<size_t>(g * quads + k) * MR + r) * 4, 4);
          const __m256i bytes = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
          dots[r][0] = _mm256_add_epi32(dots[r][0], _mm256_madd_epi16(low, bytes));
          dots[r][1] = _mm256_add_epi32(dots[r][1], _mm256_madd_epi16(high, bytes));
        }
      }
      const __m256 scale = _mm256_loadu_ps(scales + g * kBlock);
      for (int r = 0; r < MR; r++) {
        const size_t at = static_cast<size_t>(row + r) * groups + g;
        // hadd works within 128-bit halves; the permutation puts the eight outputs in order.
        const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(dots[r][0], dots[r][1]), 0xD8);
        const __m256i total = _mm256_add_epi32(pairs, _mm256_set1_epi32(rows.offsets[at]));
        const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(rows.scales[at]));
        sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), both, sums[r]);
      }
    }
    for (int r = 0; r < MR; r++) {
      float* to = y + (row + r) * stride + first + part * 8;
      __m256 value = sums[r];
      if (linear.bias != nullptr) value = _mm256_add_ps(value, _mm256_loadu_ps(linear.bias + first + part * 8));
      if (add) value = _mm256_add_ps(value, _mm256_loadu_ps(to));
      _mm256_storeu_ps(to, value);
    }
  }
}

int64_t spin(int rounds) {
  __m256i sums[12];
#pragma GCC unroll 12
  for (int s = 0; s < 12; s++) sums[s] = _mm256_setzero_si256();
  __m256i weights = _mm256_set1_epi16(3), bytes = _mm256_set1_epi16(5);
  for (int i = 0; i < rounds; i++) {
    asm volatile("" : "+x"(weights), "+x"(bytes));
#pragma GCC unroll 12
    for (int s = 0; s < 12; s++) sums[s] = _mm256_add_epi32(sums[s], _mm256_madd_epi16(weights, bytes));
  }
#pragma GCC unroll 12
  for (int s = 0; s < 12; s++) asm volatile("" ::"x"(sums[s]));
  return static_cast<int64_t>(rounds) * 12 * 16 * 2;
}

#include "ops.inl"

const Ops table = {"avx2", rms_norm, quantise, linear, rotate, silu_product, attend, head, spin, walk};

}  // namespace avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#pragma GCC pop_options

const Ops* ops_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2::table : nullptr;
}
}  // namespace diffcode
#else
namespace diffcode {
const Ops* ops_avx2() { return nullptr; }
}  // namespace diffcode
#endif
