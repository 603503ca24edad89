// Plain C++: any processor. Also the choice of the table.
#include <cstdlib>
#include <cstring>

#include "ops.h"

namespace diffcode {
namespace portable {

// Input k of output e of a block, as it is stored.
template <int BITS>
inline int32_t stored(const uint8_t* block, int k, int e) {
  if (BITS == 8) return block[static_cast<size_t>(k / 4) * kBlock * 4 + e * 4 + k % 4];
  const uint8_t* eight = block + static_cast<size_t>(k / 8) * kBlock * BITS;
  const int at = e * 4 + k % 4, upper = k / 4 % 2;
  const int32_t nibble = eight[at] >> (4 * upper) & 15;
  return BITS == 4 ? nibble : nibble | (eight[128 + upper * 16 + at / 8] >> (at % 8) & 1) << 4;
}

template <int MR>
inline void tile_bf16(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  const size_t first = static_cast<size_t>(block) * kBlock;
  const uint8_t* w = linear.weights + block * linear.block_bytes();
  for (int r = 0; r < MR; r++) {
    const int8_t* x = rows.values + row * linear.row_bytes() + r * 4;
    float sums[kBlock] = {};
    for (int k = 0; k < linear.inputs; k += 2) {
      uint16_t weights[kBlock * 2], numbers[2];
      std::memcpy(weights, w + static_cast<size_t>(k) * kBlock * 2, sizeof weights);
      std::memcpy(numbers, x + k / 2 * rows.apart(MR), sizeof numbers);
      const float even = from_bf16(numbers[0]), odd = from_bf16(numbers[1]);
      for (int e = 0; e < kBlock; e++) sums[e] += from_bf16(weights[2 * e]) * even + from_bf16(weights[2 * e + 1]) * odd;
    }
    float* to = y + (row + r) * stride + first;
    for (int e = 0; e < kBlock; e++)
      to[e] = sums[e] + (linear.bias != nullptr ? linear.bias[first + e] : 0.0f) + (add ? to[e] : 0.0f);
  }
}

template <int MR, int BITS>
inline void tile_bytes(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  const int inputs = linear.inputs, groups = linear.groups();
  const size_t first = static_cast<size_t>(block) * kBlock;
  const uint8_t* w = linear.weights + block * linear.block_bytes();
  for (int r = 0; r < MR; r++) {
    float sums[kBlock] = {};
    for (int g = 0; g < groups; g++) {
      const size_t at = static_cast<size_t>(row + r) * groups + g;
      int32_t dots[kBlock];
      for (int e = 0; e < kBlock; e++) dots[e] = -linear.zero() * rows.sums[at];
      for (int k = g * linear.group; k < (g + 1) * linear.group; k += 4) {
        const int8_t* x = rows.values + static_cast<size_t>(row) * inputs + k / 4 * rows.apart(MR) + r * 4;
        for (int e = 0; e < kBlock; e++)
          for (int i = 0; i < 4; i++) dots[e] += stored<BITS>(w, k + i, e) * x[i];
      }
      const uint16_t* scales = linear.scales + first * groups + static_cast<size_t>(g) * kBlock;
      for (int e = 0; e < kBlock; e++) sums[e] += static_cast<float>(dots[e]) * (from_bf16(scales[e]) * rows.scales[at]);
    }
    float* to = y + (row + r) * stride + first;
    for (int e = 0; e < kBlock; e++)
      to[e] = sums[e] + (linear.bias != nullptr ? linear.bias[first + e] : 0.0f) + (add ? to[e] : 0.0f);
  }
}

template <int MR, int BITS>
inline void tile(const Linear& linear, const Rows& rows, int row, int block, float* y, size_t stride, bool add) {
  if constexpr (BITS == 16) tile_bf16<MR>(linear, rows, row, block, y, stride, add);
  else tile_bytes<MR, BITS>(linear, rows, row, block, y, stride, add);
}

int64_t spin(int rounds) {
  int32_t sums[64] = {}, byte = 5;
  for (int i = 0; i < rounds; i++) {
    asm volatile("" : "+r"(byte));
    for (int s = 0; s < 64; s++) sums[s] += (s + i) * byte;
  }
  asm volatile("" ::"m"(sums));
  return static_cast<int64_t>(rounds) * 64 * 2;
}

int64_t spin_bf16(int rounds) {
  float sums[64] = {}, number = 5;
  for (int i = 0; i < rounds; i++) {
    asm volatile("" : "+m"(number));
    for (int s = 0; s < 64; s++) sums[s] += s * number;
  }
  asm volatile("" ::"m"(sums));
  return static_cast<int64_t>(rounds) * 64 * 2;
}

constexpr int kLanes = 8, kManyHeads = 4;

#include "ops.inl"

const Ops table = {"portable", stay,         stay,   layout, rms_norm, quantise,  narrow, linear,
                   rotate, silu_product, attend, head,   spin,     spin_bf16, walk};

}  // namespace portable

const Ops* ops_portable() { return &portable::table; }

const Ops* best_ops() {
  const Ops* known[] = {ops_amx(), ops_avx512bf16(), ops_avx512(), ops_avx2(), ops_portable()};
  const char* wanted = std::getenv("DIFFCODE_ISA");
  for (const Ops* ops : known)
    if (ops != nullptr && (wanted == nullptr || *wanted == 0 || std::strcmp(wanted, ops->name) == 0)) return ops;
  return nullptr;  // the one that was asked for does not run here
}

}  // namespace diffcode
