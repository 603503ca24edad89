// AMX: Intel's servers from Sapphire Rapids on. All but the linear maps of 8 bits and bf16 is AVX-512's.
#include "ops.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx2,amx-tile,amx-int8,amx-bf16")
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx2,amx-tile,amx-int8,amx-bf16"))), \
                             apply_to = function)
#endif

namespace diffcode {
namespace amx {

#include "avx512.inl"

// A register tile has 16 rows of 64 bytes. Of the eight, four sum up 32 rows times 32 outputs, two hold rows, two weights.
constexpr int kTall = 16, kRun = 64;
constexpr int kStep = kRun * kBlock;  // bytes of weights that meet such a run
constexpr int kAhead = 4096;          // bytes, as in isa_avx512.cpp; 16 KB ahead took longer
constexpr int kFewest = 8;            // rows of 8 bits: fewer wait for memory, and AVX-512 reads that a little faster
static_assert(kTall <= kTallest);

const Ops* plain;  // the table of what is not done here

struct Config {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};

  constexpr Config() {
    for (int i = 0; i < 8; i++) bytes[i] = kRun, rows[i] = kTall;
  }
};

// GCC believes that the instruction reads eight bytes, and leaves out the others of an object on the stack.
alignas(64) constexpr Config kConfig;

// Other code that the thread runs in between has tiles of its own, and llama.cpp sets them up only once.
alignas(64) thread_local Config theirs;

void enter() {
  _tile_storeconfig(&theirs);
  _tile_loadconfig(&kConfig);
}

void leave() { _tile_loadconfig(&theirs); }

// Rows of bf16 always come here, for AVX-512 adds their products in another order.
Layout layout(const Linear& reader, int count) {
  const bool bytes = reader.bits == 8 && reader.group % kRun == 0 && count >= kFewest;
  const bool fits = reader.bits == 16 ? reader.row_bytes() % kRun == 0 : bytes;
  return fits ? Layout{kTall, kRun, true} : plain->layout(reader, count);
}

template <int A>
inline void clear() {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (A == 2) _tile_zero(2);
  if constexpr (A == 2) _tile_zero(3);
}

template <bool BF16, int A>
inline void multiply() {
  if constexpr (BF16) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (A == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (A == 2) _tile_dpbf16ps(3, 5, 7);
  } else {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    if constexpr (A == 2) _tile_dpbsud(2, 5, 6);
    if constexpr (A == 2) _tile_dpbsud(3, 5, 7);
  }
}

// Adds a run of A x 16 rows, the second ones `second` bytes behind the first, times the weights it meets, to the sums in the
// tiles. Weights are packed in fours of an input's bytes, which is what the instruction wants.
template <bool BF16, int A>
inline void step(const uint8_t* w, const int8_t* x, size_t second) {
  for (int line = 0; line < kStep; line += 64) _mm_prefetch(reinterpret_cast<const char*>(w) + kAhead + line, _MM_HINT_T1);
  _tile_loadd(6, w, 4 * kBlock);
  _tile_loadd(7, w + 64, 4 * kBlock);
  _tile_loadd(4, x, kRun);
  if constexpr (A == 2) _tile_loadd(5, x + second, kRun);
  multiply<BF16, A>();
}

// The sums into memory, [A * 16][32].
template <int A>
inline void store(void* sums) {
  constexpr size_t kApart = 4 * kBlock;
  char* to = static_cast<char*>(sums);
  _tile_stored(0, to, kApart);
  _tile_stored(1, to + 64, kApart);
  if constexpr (A == 2) _tile_stored(2, to + kApart * kTall, kApart);
  if constexpr (A == 2) _tile_stored(3, to + kApart * kTall + 64, kApart);
}

using Sums = float[kBlock];

// What group `g` adds to the sums of `count` rows from `row` on: the same numbers, added in the same order, as in
// isa_avx512.cpp.
inline void scale(const Linear& linear, const Rows& rows, int row, int count, int block, int g, const int32_t (*dots)[kBlock],
                  Sums* sums) {
  const int groups = linear.groups();
  const uint16_t* scales = linear.scales + (static_cast<size_t>(block) * groups + g) * kBlock;
  const __m512 low_scale = scales_at(scales), high_scale = scales_at(scales + 16);
  size_t at = static_cast<size_t>(row) * groups + g;
  for (int r = 0; r < count; r++, at += groups) {
    const __m512 mine = _mm512_set1_ps(rows.scales[at]);
    const __m512i zeros = _mm512_set1_epi32(rows.sums[at] * 128);
    const __m512i first = _mm512_sub_epi32(_mm512_load_si512(dots[r]), zeros);
    const __m512i last = _mm512_sub_epi32(_mm512_load_si512(dots[r] + 16), zeros);
    const __m512 low = _mm512_mul_ps(low_scale, mine), high = _mm512_mul_ps(high_scale, mine);
    _mm512_store_ps(sums[r], _mm512_fmadd_ps(_mm512_cvtepi32_ps(first), low, _mm512_load_ps(sums[r])));
    _mm512_store_ps(sums[r] + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(last), high, _mm512_load_ps(sums[r] + 16)));
  }
}

// `count` of A x 16 rows from `row` on, times a block of 32 outputs. Tried: a group of inputs of 64 to 256 rows after the
// other, for the first cache's sake, and reading what tiles have stored one group later. Neither took less time.
template <bool BF16, int A>
inline void tile(const Linear& linear, const Rows& rows, int row, int count, int block, float* y, size_t stride, bool add) {
  const uint8_t* w = linear.weights + block * linear.block_bytes();
  const int8_t* x = rows.values + row * linear.row_bytes();
  const size_t second = kTall * linear.row_bytes();
  alignas(64) float sums[A * kTall][kBlock];
  if constexpr (BF16) {
    clear<A>();
    for (size_t k = 0; k < linear.row_bytes(); k += kRun, w += kStep, x += kTall * kRun) step<true, A>(w, x, second);
    store<A>(sums);
  } else {
    alignas(64) int32_t dots[A * kTall][kBlock];
    std::memset(sums, 0, count * sizeof sums[0]);
    for (int g = 0; g < linear.groups(); g++) {
      clear<A>();
      for (int k = 0; k < linear.group; k += kRun, w += kStep, x += kTall * kRun) step<false, A>(w, x, second);
      store<A>(dots);
      scale(linear, rows, row, count, block, g, dots, sums);
    }
  }
  finish(linear, sums, row, count, block, y, stride, add);
}

template <bool BF16>
void linear_of(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride, bool add) {
  for (int block = first / kBlock; block < last / kBlock; block++) {
    for (int row = 0; row < count; row += 2 * kTall) {
      const int left = count - row < 2 * kTall ? count - row : 2 * kTall;
      if (left > kTall) tile<BF16, 2>(linear, rows, row, left, block, y, stride, add);
      else tile<BF16, 1>(linear, rows, row, left, block, y, stride, add);
    }
  }
}

void linear(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride, bool add) {
  if (rows.layout.run != kRun) return plain->linear(linear, rows, count, first, last, y, stride, add);
  if (linear.bits == 16) return linear_of<true>(linear, rows, count, first, last, y, stride, add);
  linear_of<false>(linear, rows, count, first, last, y, stride, add);
}

template <bool BF16>
int64_t spin(int rounds) {
  alignas(64) static const int8_t ones[kTall * kRun] = {1};
  enter();
  clear<2>();
  _tile_loadd(4, ones, kRun);
  _tile_loadd(5, ones, kRun);
  _tile_loadd(6, ones, kRun);
  _tile_loadd(7, ones, kRun);
  for (int i = 0; i < rounds; i += 16) multiply<BF16, 2>();
  leave();
  return static_cast<int64_t>((rounds + 15) / 16) * 4 * kTall * kTall * kRun / (BF16 ? 2 : 1) * 2;
}

// Whether the processor has the instructions, and Linux lends this process their registers.
bool lent() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAll = kBf16 | kTile | kInt8;
  constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAll) == kAll && syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
}

}  // namespace amx

#if defined(__clang__)
#pragma clang attribute pop
#endif
#pragma GCC pop_options

const Ops* ops_amx() {
  static const Ops* const found = []() -> const Ops* {
    amx::plain = ops_avx512bf16();
    if (amx::plain == nullptr || !amx::lent()) return nullptr;
    static Ops table = *amx::plain;
    table.name = "amx";
    table.enter = amx::enter, table.leave = amx::leave, table.layout = amx::layout, table.linear = amx::linear;
    table.spin = amx::spin<false>, table.spin_bf16 = amx::spin<true>;
    return &table;
  }();
  return found;
}
}  // namespace diffcode
#else
namespace diffcode {
const Ops* ops_amx() { return nullptr; }
}  // namespace diffcode
#endif
