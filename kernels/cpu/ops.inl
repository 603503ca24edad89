// The ops, compiled once an instruction set; whoever includes this defines `tile`, the register tile of a linear map, and
// of its registers kLanes, the floats of one, and kManyHeads, the query heads that attention holds in all of them.
// Loops that GCC and clang vectorise by themselves are left to them.

inline float fast_exp(float x) {
  // 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf): 2 units in the last place, and it vectorises.
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float n = __builtin_floorf(x * 1.44269504f + 0.5f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union {
    int32_t bits;
    float value;
  } power;
  power.bits = (static_cast<int32_t>(n) + 127) << 23;
  return p * power.value;
}

void rms_norm(const float* x, const float* weight, float* y, int width, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < width; i++) sum += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(sum / width + eps);
#pragma omp simd
  for (int i = 0; i < width; i++) y[i] = x[i] * scale * weight[i];
}

void stay() {}

Layout layout(const Linear&, int) { return {kTile, 4, false}; }

// Bytes of a row to where they belong; their number divides by the run.
inline void lay(const void* bytes, int count, Place to) {
  const int8_t* from = static_cast<const int8_t*>(bytes);
  if (to.run != 4) {
    for (int i = 0; i < count; i += to.run, to.values += to.stride) __builtin_memcpy(to.values, from + i, to.run);
    return;
  }
  for (int i = 0; i < count; i += 4, to.values += to.stride) {
    __builtin_memcpy(to.values, from + i, 4);
    asm volatile("" ::: "memory");  // else GCC makes a scatter of it, which takes five times as long
  }
}

void quantise(const float* x, int width, int group, Place to, float* scales, int32_t* sums) {
  for (int g = 0; g < width / group; g++) {
    const float* from = x + g * group;
    alignas(64) int8_t bytes[kWidestGroup];
    float most = 0;
#pragma omp simd reduction(max : most)
    for (int i = 0; i < group; i++) {
      const float size = __builtin_fabsf(from[i]);
      most = size > most ? size : most;
    }
    const float scale = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0.0f;
    int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < group; i++) {
      const int32_t value = static_cast<int32_t>(__builtin_rintf(from[i] * inverse));
      bytes[i] = static_cast<int8_t>(value);
      sum += value;
    }
    lay(bytes, group, to);
    to.values += group / to.run * to.stride;
    scales[g] = scale;
    sums[g] = sum;
  }
}

void narrow(const float* x, int width, Place to) {
  for (int from = 0; from < width; from += kWidestGroup) {
    const int count = width - from < kWidestGroup ? width - from : kWidestGroup;
    alignas(64) uint16_t numbers[kWidestGroup];
#pragma omp simd
    for (int i = 0; i < count; i++) numbers[i] = to_bf16(x[from + i]);
    lay(numbers, 2 * count, to);
    to.values += 2 * count / to.run * to.stride;
  }
}

template <int BITS>
void linear_of(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride,
               bool add) {
  for (int block = first / kBlock; block < last / kBlock; block++) {
    int row = 0;
    for (; row + kTile <= count; row += kTile) tile<kTile, BITS>(linear, rows, row, block, y, stride, add);
    switch (count - row) {
      case 11: tile<11, BITS>(linear, rows, row, block, y, stride, add); break;
      case 10: tile<10, BITS>(linear, rows, row, block, y, stride, add); break;
      case 9: tile<9, BITS>(linear, rows, row, block, y, stride, add); break;
      case 8: tile<8, BITS>(linear, rows, row, block, y, stride, add); break;
      case 7: tile<7, BITS>(linear, rows, row, block, y, stride, add); break;
      case 6: tile<6, BITS>(linear, rows, row, block, y, stride, add); break;
      case 5: tile<5, BITS>(linear, rows, row, block, y, stride, add); break;
      case 4: tile<4, BITS>(linear, rows, row, block, y, stride, add); break;
      case 3: tile<3, BITS>(linear, rows, row, block, y, stride, add); break;
      case 2: tile<2, BITS>(linear, rows, row, block, y, stride, add); break;
      case 1: tile<1, BITS>(linear, rows, row, block, y, stride, add); break;
      default: break;
    }
  }
}

void linear(const Linear& linear, const Rows& rows, int count, int first, int last, float* y, size_t stride,
            bool add) {
  switch (linear.bits) {
    case 16: return linear_of<16>(linear, rows, count, first, last, y, stride, add);
    case 8: return linear_of<8>(linear, rows, count, first, last, y, stride, add);
    case 5: return linear_of<5>(linear, rows, count, first, last, y, stride, add);
    default: return linear_of<4>(linear, rows, count, first, last, y, stride, add);
  }
}

void rotate(float* x, const float* cos, const float* sin, int heads, int width) {
  const int half = width / 2;
  for (int h = 0; h < heads; h++) {
    float* low = x + h * width;
    float* high = low + half;
#pragma omp simd
    for (int i = 0; i < half; i++) {
      const float a = low[i], b = high[i];
      low[i] = a * cos[i] - b * sin[i];
      high[i] = b * cos[i] + a * sin[i];
    }
  }
}

void silu_product(const float* gate, const float* up, float* y, int width) {
#pragma omp simd
  for (int i = 0; i < width; i++) y[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
}

typedef float Lanes __attribute__((vector_size(kLanes * 4), aligned(4)));

// Keys are taken kWide at a time, for several heads of the group at once: they lie transposed, so no sum runs across a
// register, and every key is read once.
constexpr int kWide = 2 * kLanes;

template <int HEADS>
void score(const float* q, const float* keys, size_t capacity, int count, int width, float scale, float* scores,
           size_t stride, Stretch& soon) {
  for (int s = 0; s < count; s += kWide) {
    Lanes low[HEADS], high[HEADS];
#pragma GCC unroll 8
    for (int h = 0; h < HEADS; h++) low[h] = high[h] = Lanes{};
    for (int d = 0; d < width; d++) {
      const float* k = keys + d * capacity + s;
      if (soon.from < soon.to) {
        __builtin_prefetch(soon.from, 0, 2);
        __builtin_prefetch(soon.from + 64, 0, 2);
        soon.from += 128;
      }
      const Lanes first = *reinterpret_cast<const Lanes*>(k), second = *reinterpret_cast<const Lanes*>(k + kLanes);
#pragma GCC unroll 8
      for (int h = 0; h < HEADS; h++) {
        low[h] += first * q[h * width + d];
        high[h] += second * q[h * width + d];
      }
    }
#pragma GCC unroll 8
    for (int h = 0; h < HEADS; h++) {
      *reinterpret_cast<Lanes*>(scores + h * stride + s) = low[h] * scale;
      *reinterpret_cast<Lanes*>(scores + h * stride + s + kLanes) = high[h] * scale;
    }
  }
}

// y = scores x values for several heads, 64 wide, as many columns at once as the registers hold.
template <int HEADS>
void mix(const float* scores, size_t stride, const float* values, int count, float* y) {
  constexpr int kColumns = kLanes == 16 ? 4 : 2;
  for (int column = 0; column < 64; column += kColumns * kLanes) {
    Lanes sums[HEADS][kColumns];
#pragma GCC unroll 8
    for (int h = 0; h < HEADS; h++)
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; i++) sums[h][i] = Lanes{};
    for (int s = 0; s < count; s++) {
      const Lanes* from = reinterpret_cast<const Lanes*>(values + s * static_cast<size_t>(64) + column);
      Lanes v[kColumns];
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; i++) v[i] = from[i];
#pragma GCC unroll 8
      for (int h = 0; h < HEADS; h++)
#pragma GCC unroll 4
        for (int i = 0; i < kColumns; i++) sums[h][i] += v[i] * scores[h * stride + s];
    }
#pragma GCC unroll 8
    for (int h = 0; h < HEADS; h++)
      for (int i = 0; i < kColumns; i++) reinterpret_cast<Lanes*>(y + h * 64 + column)[i] = sums[h][i];
  }
}

// `work(number of heads as a type, first head)` for all heads, many at once.
template <typename Work>
void by_heads(int heads, Work work) {
  int head = 0;
  for (; head + kManyHeads <= heads; head += kManyHeads) work(std::integral_constant<int, kManyHeads>{}, head);
  for (; head + 3 <= heads; head += 3) work(std::integral_constant<int, 3>{}, head);
  for (; head < heads; head++) work(std::integral_constant<int, 1>{}, head);
}

void mix_any(const float* scores, size_t stride, const float* values, int count, int heads, int width, float* y) {
  for (int i = 0; i < heads * width; i++) y[i] = 0;
  for (int s = 0; s < count; s++) {
    const float* v = values + s * static_cast<size_t>(width);
    for (int h = 0; h < heads; h++) {
      const float p = scores[h * stride + s];
#pragma omp simd
      for (int d = 0; d < width; d++) y[h * width + d] += p * v[d];
    }
  }
}

void attend(const float* q, const float* keys, const float* values, size_t capacity, int context,
            Sight sight, int heads, int width, float* scores, float* y, Stretch soon) {
  const bool split = sight.last > sight.first && sight.first > sight.until;  // something between is not seen
  const int count = context + (sight.last > sight.until ? sight.last : sight.until);
  const size_t stride = (static_cast<size_t>(count) + kWide - 1) / kWide * kWide;
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(width));
  by_heads(heads, [&](auto many, int head) {
    score<decltype(many)::value>(q + head * width, keys, capacity, count, width, scale, scores + head * stride, stride,
                                 soon);
  });
  for (int h = 0; h < heads; h++) {
    float* mine = scores + h * stride;
    for (int i = context + sight.until; split && i < context + sight.first; i++) mine[i] = -1e30f;
    float most = -1e30f;
#pragma omp simd reduction(max : most)
    for (int i = 0; i < count; i++) most = mine[i] > most ? mine[i] : most;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++) {
      mine[i] = fast_exp(mine[i] - most);
      sum += mine[i];
    }
    const float inverse = 1.0f / sum;
#pragma omp simd
    for (int i = 0; i < count; i++) mine[i] *= inverse;
    for (int i = context + sight.until; split && i < context + sight.first; i++) mine[i] = 0;
  }
  if (width != 64) return mix_any(scores, stride, values, count, heads, width, y);
  by_heads(heads, [&](auto many, int head) {
    mix<decltype(many)::value>(scores + head * stride, stride, values, count, y + head * 64);
  });
}

Partial head(const float* logits, int count, int first_token, const float* noise, float temperature) {
  Partial found{-1e30f, -1e30f, 0, 0, -1e30f, 0, first_token};
  float most = -1e30f;
#pragma omp simd reduction(max : most)
  for (int i = 0; i < count; i++) most = logits[i] > most ? logits[i] : most;
  float sum = 0, weighted = 0;
#pragma omp simd reduction(+ : sum, weighted)
  for (int i = 0; i < count; i++) {
    const float difference = logits[i] - most, e = fast_exp(difference);
    sum += e;
    weighted += difference * e;
  }
  int at = 0;
  while (at < count && logits[at] != most) at++;  // the first of equals
  float second = -1e30f;
#pragma omp simd reduction(max : second)
  for (int i = 0; i < count; i++) {
    const float value = i == at ? -1e30f : logits[i];
    second = value > second ? value : second;
  }
  found = {most, second, sum, weighted, most, most, first_token + at};
  if (noise != nullptr) {
    found.ranked = -1e30f;
    for (int i = 0; i < count; i++) {
      const float ranked = logits[i] / temperature + noise[i];
      if (ranked > found.ranked) {
        found.ranked = ranked;
        found.ranked_logit = logits[i];
        found.token = first_token + i;
      }
    }
  }
  return found;
}

uint64_t walk(const uint8_t* memory, size_t size) {
  typedef uint64_t Eight __attribute__((vector_size(64), aligned(1)));
  Eight sums[4] = {};
  for (size_t i = 0; i + 256 <= size; i += 256) {
    __builtin_prefetch(memory + i + 16384, 0, 2);
    __builtin_prefetch(memory + i + 16448, 0, 2);
    __builtin_prefetch(memory + i + 16512, 0, 2);
    __builtin_prefetch(memory + i + 16576, 0, 2);
    for (int s = 0; s < 4; s++) sums[s] += *reinterpret_cast<const Eight*>(memory + i + s * 64);
  }
  const Eight all = sums[0] + sums[1] + sums[2] + sums[3];
  uint64_t total = 0;
  for (int i = 0; i < 8; i++) total += all[i];
  return total;
}
