// AVX-512 with VNNI: Intel from Ice Lake on, AMD from Zen 4 on. Products of bf16 (Intel from Sapphire Rapids on, AMD from
// Zen 4 on) are a table of their own.
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

#include "avx512.inl"

// The intrinsic makes GCC copy every accumulator twice and spill half of them (half of a tile's time).
inline void dot(__m512i& sum, __m512i weights, __m512i bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(bytes));
}

// Four inputs of 32 outputs as two registers; under 8 bits two such fours at once, for a byte holds one of each.
template <int BITS>
struct Fours {
  static constexpr int kCount = BITS == 8 ? 1 : 2, kBytes = kCount * 16 * BITS;
  __m512i weights[kCount][2];

  explicit Fours(const uint8_t* from) {
    const __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + 64);
    if constexpr (BITS == 8) {
      weights[0][0] = low, weights[0][1] = high;
      return;
    } else {
      const __m512i nibble = _mm512_set1_epi8(15), upper_low = _mm512_srli_epi16(low, 4), upper_high = _mm512_srli_epi16(high, 4);
      weights[0][0] = _mm512_and_si512(low, nibble), weights[0][1] = _mm512_and_si512(high, nibble);
      weights[1][0] = _mm512_and_si512(upper_low, nibble), weights[1][1] = _mm512_and_si512(upper_high, nibble);
    }
    if constexpr (BITS == 5) {
      const __m512i fifth = _mm512_set1_epi8(16);
      for (int i = 0; i < 4; i++) {
        uint64_t bits;
        __builtin_memcpy(&bits, from + 128 + i * 8, 8);
        __m512i& mine = weights[i / 2][i % 2];
        mine = _mm512_mask_add_epi8(mine, bits, mine, fifth);
      }
    }
  }
};

// Weights are fetched into the second cache only: the first one cannot await as many lines as memory sends at its full
// rate, and then 5 or 9 rows waited for memory and computed by turns.
constexpr int kAhead = 16384;  // bytes

// Two inputs of 16 outputs times those of a row.
template <bool DOTS>
inline void multiply(__m512& sum, __m512i weights, __m512i numbers) {
  if constexpr (DOTS) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(numbers));  // see `dot`
  } else {
    const __m512i odd = _mm512_set1_epi32(-65536);
    const auto single = [](__m512i bits) { return _mm512_castsi512_ps(bits); };
    sum = _mm512_fmadd_ps(single(_mm512_slli_epi32(weights, 16)), single(_mm512_slli_epi32(numbers, 16)), sum);
    sum = _mm512_fmadd_ps(single(_mm512_and_si512(weights, odd)), single(_mm512_and_si512(numbers, odd)), sum);
  }
}

template <int MR, bool DOTS>
inline void tile_bf16(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  const uint8_t* w = linear.weights + block * linear.block_bytes();
  const int8_t* x = rows.values + row * linear.row_bytes();
  const size_t apart = rows.apart(MR);
  __m512 dots[MR][2];
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) dots[r][0] = dots[r][1] = _mm512_setzero_ps();
  for (int k = 0; k < linear.inputs; k += 2, w += 128, x += apart) {
    const __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 64);
    _mm_prefetch(reinterpret_cast<const char*>(w) + kAhead, _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(w) + kAhead + 64, _MM_HINT_T1);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      int32_t two;
      __builtin_memcpy(&two, x + r * 4, 4);
      const __m512i numbers = _mm512_set1_epi32(two);
      multiply<DOTS>(dots[r][0], low, numbers);
      multiply<DOTS>(dots[r][1], high, numbers);
    }
  }
  alignas(64) float sums[MR][kBlock];
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) {
    _mm512_store_ps(sums[r], dots[r][0]);
    _mm512_store_ps(sums[r] + 16, dots[r][1]);
  }
  finish(linear, sums, row, MR, block, y, stride, add);
}

// MR rows times 32 outputs. vpdpbusd multiplies unsigned by signed bytes, so the weights are the unsigned side: the
// rows' bytes can then be broadcast four at a time. The sums over groups live in memory on purpose: kept in registers
// they would push out the 24 accumulators of the inner loop.
template <int MR, int BITS>
inline void tile_bytes(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  using Weights = Fours<BITS>;
  const int inputs = linear.inputs, groups = linear.groups(), quads = linear.group / 4;
  const uint8_t* w = linear.weights + block * linear.block_bytes();
  const uint16_t* scales = linear.scales + static_cast<size_t>(block) * groups * kBlock;
  const int8_t* x = rows.values + static_cast<size_t>(row) * inputs;
  const float* row_scales = rows.scales + static_cast<size_t>(row) * groups;
  const int32_t* row_sums = rows.sums + static_cast<size_t>(row) * groups;
  const size_t apart = rows.apart(MR);
  alignas(64) float sums[MR][kBlock];
  for (int r = 0; r < MR; r++) {
    _mm512_store_ps(sums[r], _mm512_setzero_ps());
    _mm512_store_ps(sums[r] + 16, _mm512_setzero_ps());
  }
  for (int g = 0; g < groups; g++) {
    asm volatile("" ::: "memory");
    __m512i dots[MR][2];
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++)
      dots[r][0] = dots[r][1] = _mm512_set1_epi32(-row_sums[r * groups + g] * linear.zero());
    for (int k = 0; k < quads; k += Weights::kCount) {
      const Weights fours(w);
      for (int line = 0; line < Weights::kBytes; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(w) + kAhead + line, _MM_HINT_T1);
      w += Weights::kBytes;
#pragma GCC unroll 2
      for (int i = 0; i < Weights::kCount; i++) {
#pragma GCC unroll 12
        for (int r = 0; r < MR; r++) {
          int32_t four;
          __builtin_memcpy(&four, x + r * 4, 4);
          const __m512i bytes = _mm512_set1_epi32(four);
          dot(dots[r][0], fours.weights[i][0], bytes);
          dot(dots[r][1], fours.weights[i][1], bytes);
        }
        x += apart;
      }
    }
    asm volatile("" ::: "memory");
    const __m512 low_scale = scales_at(scales + g * kBlock), high_scale = scales_at(scales + g * kBlock + 16);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      const __m512 mine = _mm512_set1_ps(row_scales[r * groups + g]);
      const __m512 first = _mm512_cvtepi32_ps(dots[r][0]), second = _mm512_cvtepi32_ps(dots[r][1]);
      _mm512_store_ps(sums[r], _mm512_fmadd_ps(first, _mm512_mul_ps(low_scale, mine), _mm512_load_ps(sums[r])));
      _mm512_store_ps(sums[r] + 16, _mm512_fmadd_ps(second, _mm512_mul_ps(high_scale, mine), _mm512_load_ps(sums[r] + 16)));
    }
  }
  finish(linear, sums, row, MR, block, y, stride, add);
}

constexpr int kDots = -16;  // as BITS: bf16, where the processor multiplies it

template <int MR, int BITS>
inline void tile(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  if constexpr (BITS == 16 || BITS == kDots) tile_bf16<MR, BITS == kDots>(linear, rows, row, block, y, stride, add);
  else tile_bytes<MR, BITS>(linear, rows, row, block, y, stride, add);
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

template <bool DOTS>
int64_t spin_bf16(int rounds) {
  __m512 sums[24];
#pragma GCC unroll 24
  for (int s = 0; s < 24; s++) sums[s] = _mm512_setzero_ps();
  const __m512i weights = _mm512_set1_epi32(0x40404040), numbers = _mm512_set1_epi32(0x40a040a0);
  for (int i = 0; i < rounds; i++) {
    asm volatile("");
#pragma GCC unroll 24
    for (int s = 0; s < 24; s++) multiply<DOTS>(sums[s], weights, numbers);
  }
#pragma GCC unroll 24
  for (int s = 0; s < 24; s++) asm volatile("" ::"v"(sums[s]));
  return static_cast<int64_t>(rounds) * 24 * 32 * 2;
}

constexpr int kLanes = 16, kManyHeads = 7;

#include "ops.inl"

void linear_dots(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride,
                 bool add) {
  if (linear.bits == 16) return linear_of<kDots>(linear, rows, count, first, last, y, stride, add);
  avx512::linear(linear, rows, count, first, last, y, stride, add);
}

const Ops table = {"avx512", stay,         stay,   layout, rms_norm, quantise,         narrow, linear,
                   rotate,   silu_product, attend, head,   spin,     spin_bf16<false>, walk};
const Ops table_dots = {"avx512bf16", stay,         stay,   layout, rms_norm, quantise,        narrow, linear_dots,
                        rotate,       silu_product, attend, head,   spin,     spin_bf16<true>, walk};

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

const Ops* ops_avx512bf16() {
  return ops_avx512() != nullptr && __builtin_cpu_supports("avx512bf16") ? &avx512::table_dots : nullptr;
}
}  // namespace diffcode
#else
namespace diffcode {
const Ops* ops_avx512bf16() { return nullptr; }
const Ops* ops_avx512() { return nullptr; }
}  // namespace diffcode
#endif
