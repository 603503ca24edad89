#include "session.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

namespace diffcode {

Pages::Pages(size_t size) : size_(size) {
  if (!size) return;
#ifdef MAP_ANONYMOUS
  void* found = mmap(nullptr, size * sizeof(float), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  madvise(found, size * sizeof(float), MADV_HUGEPAGE);  // a wish: without it the pages are small
#endif
#else
  void* found = std::calloc(size, sizeof(float));
  if (!found) throw std::bad_alloc();
#endif
  data_ = static_cast<float*>(found);
}

Pages::~Pages() {
  if (!data_) return;
#ifdef MAP_ANONYMOUS
  munmap(data_, size_ * sizeof(float));
#else
  std::free(data_);
#endif
}

Model::Model(const diffcode_weights& weights, const Ops* chosen, int threads)
    : w(weights), layers(weights.layers, weights.layers + weights.shape.layers), ops(chosen), pool(threads), space(pool.threads()) {
  w.layers = layers.data();
  unit_ = std::min<int>(w.shape.ffn, std::lcm(kBlock, std::max(1, layers[0].down.base.group)));
  for (const auto& l : layers)
    for (const auto* map : {&l.qkv, &l.out, &l.gate_up, &l.down})
      widest_rank_ = std::max({widest_rank_, map->low.outputs, map->undo_low.outputs});
}

void Quantised::plan(size_t rows, size_t row_bytes) {
  // Whole tiles, and as much behind them as one may read that begins within the last one.
  const size_t whole = (rows + kTallest - 1) / kTallest * kTallest;
  make_room(values_, whole * row_bytes + kTallest * 64 + 64);
  make_room(scales_, rows * row_bytes / 4);
  make_room(sums_, rows * row_bytes / 4);
}

void Quantised::put(const Ops& ops, const float* from, int r, int count, const Linear& reader, int column, int columns) {
  const Layout layout = ops.layout(reader, count);
  const int first = r / layout.tile * layout.tile, together = layout.together(first, count), group = reader.group;
  const size_t number = reader.row_bytes() / reader.inputs;
  int8_t* begin = values() + first * reader.row_bytes() + column * number * together + (r - first) * layout.run;
  const Place to{begin, static_cast<size_t>(together) * layout.run, layout.run};
  if (group == 0) return ops.narrow(from, columns, to);
  const size_t at = static_cast<size_t>(r) * reader.groups() + column / group;
  ops.quantise(from, columns, group, to, scales_.data() + at, sums_.data() + at);
}

void Session::reserve(size_t length) {
  if (length <= capacity) return;
  const auto& s = model->w.shape;
  const size_t had = capacity, wanted = (std::max(length, capacity * 2) + kAlign - 1) / kAlign * kAlign;
  const size_t planes = static_cast<size_t>(s.layers) * s.kv_heads, width = s.head_width;
  Pages had_keys(planes * width * wanted), had_values(planes * width * wanted);
  had_keys.swap(keys);  // nothing has changed yet if there was no memory
  had_values.swap(values);
  capacity = wanted;
  place(had_keys, had_values, had, had);
}

void Session::copy(const Session& from, size_t length) {
  length = std::min(length, from.capacity);
  reserve(length);
  place(from.keys, from.values, from.capacity, length);
}

void Session::place(const Pages& from_keys, const Pages& from_values, size_t stride, size_t length) {
  const auto& s = model->w.shape;
  const size_t planes = static_cast<size_t>(s.layers) * s.kv_heads, width = s.head_width;
  for (size_t p = 0; p < planes; p++) {
    for (size_t d = p * width; d < (p + 1) * width; d++)
      std::copy_n(from_keys.data() + d * stride, length, keys.data() + d * capacity);
    std::copy_n(from_values.data() + p * width * stride, length * width, values.data() + p * width * capacity);
  }
}

void Workspace::plan(const Model& model, int rows, size_t capacity) {
  const auto& s = model.w.shape;
  const size_t count = rows, heads = static_cast<size_t>(s.heads) * s.head_width, unit = model.unit(), number = model.number();
  const size_t inner = std::max<size_t>(s.width, heads), few = std::min(rows, kFewRows);
  const size_t rank = std::max(kBlock, model.widest_rank());
  make_room(x, count * s.width);
  make_room(qkv, count * model.layers[0].qkv.base.outputs);
  make_room(mixed, count * heads);
  make_room(cos, count * s.head_width);
  make_room(sin, count * s.head_width);
  input.plan(count, inner * number);
  product.plan(count, s.ffn * number);
  for (Scratch& mine : threads) {
    mine.few.plan(few, inner * number);
    for (auto& parts : mine.low_rank)
      for (Quantised& part : parts) part.plan(count, rank * number);
    make_room(mine.row, s.width);
    make_room(mine.low, count * rank);
    make_room(mine.piece, count * unit * 2);
    make_room(mine.product, unit);
    make_room(mine.scores, s.heads * (capacity + 2 * kAlign));
  }
}

}  // namespace diffcode
