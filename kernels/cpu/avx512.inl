// What AVX-512's and AMX's tiles share, compiled for each.

inline __m512 scales_at(const uint16_t* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

// What was summed up of `count` rows from `row` on, into `y`.
inline void finish(const Linear& linear, const float (*sums)[kBlock], int row, int count, int block, float* y, size_t stride,
                   bool add) {
  for (int r = 0; r < count; r++) {
    float* to = y + (row + r) * stride + static_cast<size_t>(block) * kBlock;
    for (int i = 0; i < kBlock; i += 16) {
      __m512 value = _mm512_load_ps(sums[r] + i);
      if (linear.bias != nullptr) value = _mm512_add_ps(value, _mm512_loadu_ps(linear.bias + block * kBlock + i));
      if (add) value = _mm512_add_ps(value, _mm512_loadu_ps(to + i));
      _mm512_storeu_ps(to + i, value);
    }
  }
}
