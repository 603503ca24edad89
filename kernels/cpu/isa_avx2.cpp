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

constexpr int kAhead = 4096;  // bytes

// Four inputs of eight outputs as bytes [8][4]; under 8 bits two such fours at once, for a byte holds one of each.
template <int BITS>
struct Fours {
  static constexpr int kCount = BITS == 8 ? 1 : 2, kBytes = kCount * 16 * BITS;  // of all 32 outputs
  __m256i weights[kCount];

  Fours(const uint8_t* from, int part) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + part * 32));
    if constexpr (BITS == 8) {
      weights[0] = bytes;
    } else {
      const __m256i nibble = _mm256_set1_epi8(15);
      weights[0] = _mm256_and_si256(bytes, nibble);
      weights[1] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
    }
    if constexpr (BITS == 5)
      for (int i = 0; i < 2; i++) weights[i] = _mm256_or_si256(weights[i], fifths(from + 128 + i * 16 + part * 4));
  }

 private:
  // 16 in each byte whose bit is set.
  static __m256i fifths(const uint8_t* from) {
    int32_t bits;
    __builtin_memcpy(&bits, from, 4);
    const __m256i byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    const __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte_of), bit_of);
    return _mm256_and_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(16));
  }
};

inline __m256i four_of(const int8_t* from) {
  int32_t four;
  __builtin_memcpy(&four, from, 4);
  return _mm256_set1_epi32(four);
}

inline __m256 scales_at(const uint16_t* from) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

// Weights are read once; the processor's own prefetch stops at the end of a page. Into the second cache: the first one
// cannot await as many lines as memory sends at its full rate.
inline void ahead(const uint8_t* from) {
  _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead, _MM_HINT_T1);
}

// GCC would rather add into fresh registers, and spill the sums.
inline void add32(__m256i& sum, __m256i more) { asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(more)); }
inline void add16(__m256i& sum, __m256i more) { asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(more)); }

// P times eight outputs of R rows of a tile, `x` pointing to the first: a group's products, as integers.
template <int R, int P, int BITS>
inline void products(const uint8_t* w, const int8_t* x, size_t apart, int quads, int part,
                     __m256i (&totals)[P][R]) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int p = 0; p < P; p++) {
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) totals[p][r] = _mm256_setzero_si256();
  }
  if constexpr (BITS == 8) {
    // The sign of a weight goes to the row's byte: 127 * 127 * 2 is below 2^15, 255 * 127 * 2 would not be.
    const __m256i middle = _mm256_set1_epi8(-128);
    for (int k = 0; k < quads; k++, w += Fours<8>::kBytes, x += apart) {
      ahead(w);
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) {
        const __m256i weights = _mm256_xor_si256(Fours<8>(w, part + p).weights[0], middle);
        const __m256i sizes = _mm256_abs_epi8(weights);
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) {
          const __m256i bytes = _mm256_sign_epi8(four_of(x + r * 4), weights);
          add32(totals[p][r], _mm256_madd_epi16(_mm256_maddubs_epi16(sizes, bytes), ones));
        }
      }
    }
  } else {
    // Sums of so many products of two bytes each stay below 2^15: 31 * 127 * 2 * 4, 15 * 127 * 2 * 8.
    constexpr int kFit = BITS == 5 ? 4 : 8;
    for (int from = 0; from < quads; from += kFit) {
      __m256i dots[P][R];
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) {
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) dots[p][r] = _mm256_setzero_si256();
      }
      for (int k = from; k < from + kFit && k < quads; k += 2, w += Fours<BITS>::kBytes, x += 2 * apart) {
        ahead(w);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
          const Fours<BITS> fours(w, part + p);
#pragma GCC unroll 2
          for (int i = 0; i < 2; i++) {
#pragma GCC unroll 6
            for (int r = 0; r < R; r++)
              add16(dots[p][r], _mm256_maddubs_epi16(fours.weights[i], four_of(x + i * apart + r * 4)));
          }
        }
      }
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) {
#pragma GCC unroll 6
        for (int r = 0; r < R; r++) add32(totals[p][r], _mm256_madd_epi16(dots[p][r], ones));
      }
    }
  }
}

// Two inputs of eight outputs, or of one row, as the first ones and the second ones.
struct Pair {
  __m256 even, odd;

  explicit Pair(__m256i both)
      : even(_mm256_castsi256_ps(_mm256_slli_epi32(both, 16))),
        odd(_mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(-65536)))) {}
};

// As `products`, of bf16 and added to `sums`. A sum takes the first inputs' product and then the second ones'.
template <int R, int P>
inline void products_bf16(const uint8_t* w, const int8_t* x, size_t apart, int pairs, int part, __m256 (&sums)[P][R]) {
  for (int k = 0; k < pairs; k++, w += kBlock * 4, x += apart) {
    ahead(w);
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      const Pair weights(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + (part + p) * 32)));
#pragma GCC unroll 6
      for (int r = 0; r < R; r++) {
        const Pair numbers(four_of(x + r * 4));
        sums[p][r] = _mm256_fmadd_ps(weights.even, numbers.even, sums[p][r]);
        sums[p][r] = _mm256_fmadd_ps(weights.odd, numbers.odd, sums[p][r]);
      }
    }
  }
}

// Rows `begin` to `begin + R` of a tile of MR rows, P times eight outputs at a time.
template <int MR, int R, int P, int BITS>
inline void some(const Linear& linear, const Rows& rows, int row, int begin, int block, float* y, size_t stride, bool add) {
  const int groups = linear.groups(), quads = linear.group / 4;
  const size_t first = static_cast<size_t>(block) * kBlock, group_bytes = static_cast<size_t>(linear.group) * kBlock * BITS / 8;
  const int8_t* x = rows.values + row * linear.row_bytes() + begin * 4;
  const size_t apart = rows.apart(MR);
  for (int part = 0; part < kBlock / 8; part += P) {
    const uint8_t* w = linear.weights + block * linear.block_bytes();
    const uint16_t* scales = linear.scales + first * groups + part * 8;
    __m256 sums[P][R];
    for (int p = 0; p < P; p++)
      for (int r = 0; r < R; r++) sums[p][r] = _mm256_setzero_ps();
    if constexpr (BITS == 16) products_bf16<R, P>(w, x, apart, linear.inputs / 2, part, sums);
    for (int g = 0; BITS != 16 && g < groups; g++) {
      __m256i totals[P][R];
      products<R, P, BITS>(w + g * group_bytes, x + g * quads * apart, apart, quads, part, totals);
      for (int r = 0; r < R; r++) {
        const size_t at = static_cast<size_t>(row + begin + r) * groups + g;
        const int32_t zeros = BITS == 8 ? 0 : rows.sums[at] * linear.zero();  // weights of 8 bits have their signs again
        for (int p = 0; p < P; p++) {
          const __m256i total = _mm256_sub_epi32(totals[p][r], _mm256_set1_epi32(zeros));
          const __m256 both = _mm256_mul_ps(scales_at(scales + g * kBlock + p * 8), _mm256_set1_ps(rows.scales[at]));
          sums[p][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), both, sums[p][r]);
        }
      }
    }
    for (int r = 0; r < R; r++) {
      for (int p = 0; p < P; p++) {
        float* to = y + (row + begin + r) * stride + first + (part + p) * 8;
        __m256 value = sums[p][r];
        if (linear.bias != nullptr) value = _mm256_add_ps(value, _mm256_loadu_ps(linear.bias + first + (part + p) * 8));
        if (add) value = _mm256_add_ps(value, _mm256_loadu_ps(to));
        _mm256_storeu_ps(to, value);
      }
    }
  }
}

// As many rows at once as 16 registers hold; of few rows all outputs of a block, which is read in one go then.
template <int MR, int BITS>
inline void tile(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  constexpr int kRows = 6, kWhole = MR / kRows * kRows, kRest = MR - kWhole;
  constexpr int kParts = MR <= 2 ? 4 : MR <= (BITS >= 8 ? 5 : 3) ? 2 : 1;
  for (int begin = 0; begin < kWhole; begin += kRows)
    some<MR, kRows, 1, BITS>(linear, rows, row, begin, block, y, stride, add);
  if constexpr (kRest > 0) some<MR, kRest, kParts, BITS>(linear, rows, row, kWhole, block, y, stride, add);
}

int64_t spin(int rounds) {
  __m256i sums[12];
#pragma GCC unroll 12
  for (int s = 0; s < 12; s++) sums[s] = _mm256_setzero_si256();
  __m256i weights = _mm256_set1_epi16(3), bytes = _mm256_set1_epi16(5);
  for (int i = 0; i < rounds; i++) {
#pragma GCC unroll 12
    for (int s = 0; s < 12; s++) {
      asm volatile("" : "+x"(weights), "+x"(bytes));  // else the product is computed once
      add32(sums[s], _mm256_madd_epi16(weights, bytes));
    }
  }
#pragma GCC unroll 12
  for (int s = 0; s < 12; s++) asm volatile("" ::"x"(sums[s]));
  return static_cast<int64_t>(rounds) * 12 * 16 * 2;
}

int64_t spin_bf16(int rounds) {
  __m256 sums[12];
#pragma GCC unroll 12
  for (int s = 0; s < 12; s++) sums[s] = _mm256_setzero_ps();
  __m256 weights = _mm256_set1_ps(3), numbers = _mm256_set1_ps(5);
  for (int i = 0; i < rounds; i++) {
    asm volatile("" : "+x"(weights), "+x"(numbers));
#pragma GCC unroll 12
    for (int s = 0; s < 12; s++) sums[s] = _mm256_fmadd_ps(weights, numbers, sums[s]);
  }
#pragma GCC unroll 12
  for (int s = 0; s < 12; s++) asm volatile("" ::"x"(sums[s]));
  return static_cast<int64_t>(rounds) * 12 * 8 * 2;
}

constexpr int kLanes = 8, kManyHeads = 4;

#include "ops.inl"

const Ops table = {"avx2", stay,         stay,   layout, rms_norm, quantise,  narrow, linear,
                   rotate, silu_product, attend, head,   spin,     spin_bf16, walk};

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
