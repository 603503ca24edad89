// Every op of a step as a table of functions, one table an instruction set. Shapes as in kernels/reference.py.
#pragma once
#include <cstddef>
#include <cstdint>

namespace diffcode {

constexpr int kBlock = 32;    // outputs of a packed block
constexpr int kTile = 12;     // rows of the largest register tile: 12 x 2 accumulators and 2 weights in 32 registers
constexpr int kWidestGroup = 256;  // inputs that share a scale, at most
constexpr int kChunks = 64;   // slices of the vocabulary; fixed, so that sums do not depend on the number of threads

// A linear map [E, D] in 8 bits. Blocks of 32 outputs: weights [E/32][D/4][32][4], stored as value + 128; scales
// [E/32][D/group][32]. E is padded to a multiple of 32 with zeros.
struct Linear {
  const uint8_t* weights;
  const float* scales;
  const float* bias;  // [E], or null
  int32_t outputs;    // padded
  int32_t inputs;
  int32_t group;  // inputs that share a scale: a multiple of 4 that divides D
  int32_t real_outputs;
};

// Rows in 8 bits, a scale for each group of each row. The values lie as a tile reads them: tiles of kTile rows (the last
// one of as many as are left, m), in each [D/4][m][4].
struct Rows {
  int8_t* values;
  float* scales;    // [R, D/group]
  int32_t* offsets;  // [R, D/group]: -128 times the sum of the group's values, which undoes the weights' + 128
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

struct Ops {
  const char* name;
  void (*rms_norm)(const float* x, const float* weight, float* y, int width, float eps);
  // One row; its groups of four bytes are written `stride` bytes apart.
  void (*quantise)(const float* x, int width, int group, int8_t* values, size_t stride, float* scales,
                   int32_t* offsets);
  // y[r, first..last) (+)= rows x linear; first and last are multiples of 32.
  void (*linear)(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride,
                 bool add);
  void (*rotate)(float* x, const float* cos, const float* sin, int heads, int width);
  void (*silu_product)(const float* gate, const float* up, float* y, int width);
  // One row, the query heads of one group: keys [width][capacity] transposed, values [capacity][width].
  void (*attend)(const float* q, const float* keys, const float* values, size_t capacity, int context,
                 Sight sight, int heads, int width, float* scores, float* y);
  Partial (*head)(const float* logits, int count, int first_token, const float* noise, float temperature);
  // What the machine can do, for the plan: multiplications and additions of bytes that `spin` does in registers alone in
  // `rounds` rounds, and a walk through memory that looks at every byte.
  int64_t (*spin)(int rounds);
  uint64_t (*walk)(const uint8_t* memory, size_t size);
};

const Ops* ops_avx512();
const Ops* ops_avx2();
const Ops* ops_portable();
// The best that this processor runs, or the one that DIFFCODE_ISA names (avx512, avx2, portable).
const Ops* best_ops();

}  // namespace diffcode
