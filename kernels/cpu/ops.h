// Every op of a step as a table of functions, one table an instruction set. Shapes as in kernels/reference.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace diffcode {

constexpr int kBlock = 32;    // outputs of a packed block
constexpr int kTile = 12;     // rows of the largest register tile: 12 x 2 accumulators and 2 weights in 32 registers
constexpr int kTallest = 16;  // ... and of any tile
constexpr int kWidestGroup = 256;  // inputs that share a scale, at most; numbers that are rounded at once
constexpr int kChunks = 64;   // slices of the vocabulary; fixed, so that sums do not depend on the number of threads

inline float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// The nearest one; what is half way goes to the even one.
inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A linear map [E, D] in 16, 8, 5 or 4 bits, by blocks of 32 outputs; E is padded to a multiple of 32 with zeros. 16 bits
// are bf16, without scales; others are stored as value + 2^(bits - 1), so that they are unsigned.
//  16 bits: [E/32][D/2][32][2].
//   8 bits: [E/32][D/4][32][4] bytes.
//   4 bits: [E/32][D/8][32][4] bytes, inputs 0-3 of each eight in the lower halves, inputs 4-7 in the upper ones.
//   5 bits: as 4 bits, and behind each such 128 bytes 32 more with the fifth bits: of inputs 0-3 16 bytes, of inputs 4-7
//           16 bytes, a bit for each byte of [32][4], the first one lowest.
// Scales: bf16 [E/32][D/group][32].
struct Linear {
  const uint8_t* weights;
  const uint16_t* scales;  // null: there are none
  const float* bias;       // [E], or null
  int32_t outputs;    // padded
  int32_t inputs;
  int32_t group;  // inputs that share a scale: a multiple of 4 (of 8 under 8 bits) that divides D; 0: they have none
  int32_t real_outputs;
  int32_t bits;

  int32_t zero() const { return 1 << (bits - 1); }
  int groups() const { return group > 0 ? inputs / group : 0; }
  size_t block_bytes() const { return static_cast<size_t>(inputs) * kBlock * bits / 8; }
  size_t row_bytes() const { return static_cast<size_t>(inputs) * (bits == 16 ? 2 : 1); }  // of a row that it reads
};

// How rows lie, as the instruction set reads them: in tiles of `tile` rows, in each `run` bytes of a row at a time.
struct Layout {
  int tile, run;
  bool whole;  // whether the last tile is as large as the others, whatever lies in it; else it has as many rows as are left

  int together(int first, int count) const { return whole || count - first > tile ? tile : count - first; }
};

// Rows in 8 bits, a scale for each group of each row, or in bf16 for maps of bf16.
struct Rows {
  int8_t* values;
  float* scales;    // [R, D/group]
  int32_t* sums;    // [R, D/group]: of the group's values; what the weights' + 2^(bits - 1) adds is that often this
  Layout layout;
  int32_t among = 0;  // rows of the tile that these are a part of, 0: they are whole tiles

  // The last `count` of so few rows that they are one tile.
  Rows last(int count, int of, const Linear& reader) const {
    const int skipped = of - count, groups = skipped * reader.groups();
    return {values + skipped * layout.run, scales + groups, sums + groups, layout, of};
  }
  size_t apart(int tile) const { return static_cast<size_t>(among > 0 ? among : tile) * 4; }  // two fours of a row
};

// What a slice of the vocabulary says of one row.
struct Partial {
  float top, second;    // largest and second largest logit
  float sum, weighted;  // sum of exp(l - top), and of (l - top) exp(l - top)
  float ranked;         // the largest ranked logit: with noise, what the draw goes by
  float ranked_logit;   // the plain logit of that token
  int32_t token;
};

// What a new row sees beside the whole context: the new rows before `until`, and those from `first` to before `last`.
struct Sight {
  int32_t until, first, last;
};

// Where the bytes of a row go: `run` of them side by side, the next ones `stride` bytes further.
struct Place {
  int8_t* values;
  size_t stride;
  int run;
};

// Memory that will be read next.
struct Stretch {
  const uint8_t *from, *to;
};

struct Ops {
  const char* name;
  // A thread calls the first one before its first linear map, and the second one after its last.
  void (*enter)();
  void (*leave)();
  // How `count` rows that `reader` reads had best lie. `linear` takes them as they lie, if they were laid for a map that has
  // the same groups.
  Layout (*layout)(const Linear& reader, int count);
  void (*rms_norm)(const float* x, const float* weight, float* y, int width, float eps);
  // One row to 8 bits, and to bf16.
  void (*quantise)(const float* x, int width, int group, Place to, float* scales, int32_t* sums);
  void (*narrow)(const float* x, int width, Place to);
  // y[r, first..last) (+)= rows x linear; first and last are multiples of 32.
  void (*linear)(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride,
                 bool add);
  void (*rotate)(float* x, const float* cos, const float* sin, int heads, int width);
  void (*silu_product)(const float* gate, const float* up, float* y, int width);
  // One row, the query heads of one group: keys [width][capacity] transposed, values [capacity][width]. As much of `soon`
  // as can be is fetched on the way: attention finds its numbers in the caches, and memory would stand idle.
  void (*attend)(const float* q, const float* keys, const float* values, size_t capacity, int context,
                 Sight sight, int heads, int width, float* scores, float* y, Stretch soon);
  Partial (*head)(const float* logits, int count, int first_token, const float* noise, float temperature);
  // What the machine can do, for the plan: multiplications and additions, of bytes or of bf16, that `spin` does in registers
  // alone in `rounds` rounds, and a walk through memory that looks at every byte.
  int64_t (*spin)(int rounds);
  int64_t (*spin_bf16)(int rounds);
  uint64_t (*walk)(const uint8_t* memory, size_t size);
};

const Ops* ops_amx();
const Ops* ops_avx512bf16();  // AVX-512 with products of bf16
const Ops* ops_avx512();
const Ops* ops_avx2();
const Ops* ops_portable();
// The best that this processor runs, or the one that DIFFCODE_ISA names.
const Ops* best_ops();

}  // namespace diffcode
