// Pieces are handed out by counters; results do not depend on who computes them.
#include "pass.h"

#include <algorithm>
#include <cmath>

namespace diffcode {
namespace {

constexpr int kTogether = 16;  // rows whose keys one thread puts into the cache: a line of it a number
constexpr int kPiece = kBlock;  // outputs of a linear map that are handed out at once; of no more than one part

}  // namespace

Pass::Pass(Session& session, const diffcode_step& step, int number, int first, int count, bool states)
    : session_(session), model_(*session.model), space_(model_.space), ops_(*model_.ops), shape_(model_.w.shape), step_(step),
      number_(number), first_(first), count_(count),
      spans_(std::max(0, std::min(count, first + count - (step.rows - step.span_rows)))), states_(states) {}

bool Pass::work(Turn& turn) {
  turn.each(count_, [&](int r) { begin(r); });
  turn.meet();
  for (int l = 0; l < shape_.layers; l++) {
    if (turn.thread == 0 && step_.cancelled != nullptr && *step_.cancelled != 0)
      space_.stop_at = std::min(space_.stop_at.load(), number_ * shape_.layers + l);
    layer(turn, l);
    if (space_.stop_at <= number_ * shape_.layers + l) return false;  // said before this layer's meetings, so all threads agree
  }
  if (!states_) return true;
  turn.each(count_, [&](int r) {
    float* y = space_.final_states.data() + static_cast<size_t>(first_ + r) * shape_.width;
    ops_.rms_norm(row(space_.x, r, shape_.width), model_.w.norm, y, shape_.width, shape_.norm_eps);
  });
  return true;
}

// A row's input vector and rotary angles.
void Pass::begin(int r) {
  const int width = shape_.width, half = shape_.head_width / 2;
  float* x = row(space_.x, r, width);
  const int32_t token = step_.tokens[first_ + r];
  if (token < 0) {
    std::copy_n(model_.w.mask, width, x);
  } else {
    const uint16_t* from = model_.w.embedding + static_cast<size_t>(token) * width;
    for (int i = 0; i < width; i++) x[i] = from_bf16(from[i]);
  }
  for (int i = 0; i < half; i++) {
    const float angle = static_cast<float>(step_.positions[first_ + r]) * model_.w.frequencies[i];
    row(space_.cos, r, half)[i] = std::cos(angle);
    row(space_.sin, r, half)[i] = std::sin(angle);
  }
}

void Pass::layer(Turn& turn, int l) {
  const diffcode_layer& w = model_.layers[l];
  const int queries = shape_.heads * shape_.head_width, keys = shape_.kv_heads * shape_.head_width;
  const Adapted qkv = adapted(w.qkv, queries, queries + keys);
  const bool keys_only = !states_ && l + 1 == shape_.layers;  // all that later rows see of it
  map(turn, qkv, normed(turn, w.input_norm, w.qkv.base), space_.qkv, false, keys_only ? queries : 0);
  place(turn, l);
  if (keys_only) return;
  turn.meet();
  map(turn, adapted(w.out), attention(turn, l), space_.x, true);
  gated(turn, w, normed(turn, w.post_norm, w.gate_up.base));
  map(turn, adapted(w.down), space_.product, space_.x, true);
}

Pass::Adapted Pass::adapted(const diffcode_map& map, int second, int third) const {
  return {view(map.base),
          {{view(map.low), view(map.high), map.low.outputs > 0 ? spans_ : 0},
           {view(map.undo_low), view(map.undo_high), map.undo_low.outputs > 0 && step_.undo != 0 ? count_ : 0}},
          second, third};
}

// Rounded rows that `fill(bytes, row)` makes: few of them by every thread for itself, many by all together.
template <typename Fill>
Bytes& Pass::shared_or_own(Turn& turn, Fill fill) {
  if (count_ <= kFewRows) {
    for (int r = 0; r < count_; r++) fill(turn.mine().few, r);
    return turn.mine().few;
  }
  turn.each(count_, [&](int r) { fill(space_.input, r); });
  turn.meet();
  return space_.input;
}

Bytes& Pass::normed(Turn& turn, const float* weight, const diffcode_linear& reader) {
  const int width = shape_.width;
  return shared_or_own(turn, [&](Bytes& bytes, int r) {
    float* y = turn.mine().row.data();
    ops_.rms_norm(row(space_.x, r, width), weight, y, width, shape_.norm_eps);
    put(bytes, y, r, view(reader), 0, width);
  });
}

Bytes& Pass::attention(Turn& turn, int l) {
  const int width = shape_.head_width, heads = shape_.heads / shape_.kv_heads;
  const Linear next = view(model_.layers[l].out.base);
  const int pieces = count_ * shape_.kv_heads;
  const size_t share = next.block_bytes() * (next.outputs / kBlock) / pieces;
  turn.each(pieces, [&](int piece) {
    const int r = piece / shape_.kv_heads, g = piece % shape_.kv_heads;
    const uint8_t* soon = next.weights + piece * share;
    const float* q = row(space_.qkv, r, model_.layers[l].qkv.base.outputs) + g * heads * width;
    float* y = row(space_.mixed, r, shape_.heads * width) + g * heads * width;
    ops_.attend(q, session_.key(l, g), session_.value(l, g), session_.capacity, step_.context,
                step_.sights[first_ + r], heads, width, turn.mine().scores.data(), y, {soon, soon + share});
  });
  turn.meet();
  const int all = shape_.heads * width;
  return shared_or_own(turn, [&](Bytes& bytes, int r) {
    put(bytes, row(space_.mixed, r, all), r, next, 0, all);
  });
}

// Rotary embedding, and the rows' keys and values into the cache.
void Pass::place(Turn& turn, int l) {
  const int together = count_ <= kFewRows ? 1 : kTogether;
  turn.each((count_ + together - 1) / together,
            [&](int piece) { place(l, piece * together, std::min(count_, (piece + 1) * together)); });
}

void Pass::place(int l, int from, int to) {
  const int width = shape_.head_width, half = width / 2, stride = model_.layers[l].qkv.base.outputs;
  for (int r = from; r < to; r++) {
    float* q = row(space_.qkv, r, stride);
    const float *cos = row(space_.cos, r, half), *sin = row(space_.sin, r, half);
    ops_.rotate(q, cos, sin, shape_.heads + shape_.kv_heads, width);  // the keys lie behind the queries
  }
  const size_t at = static_cast<size_t>(step_.context) + first_;
  const float* k = row(space_.qkv, 0, stride) + shape_.heads * width;
  const float* v = k + shape_.kv_heads * width;
  for (int g = 0; g < shape_.kv_heads; g++) {
    for (int d = 0; d < width; d++) {
      float* keys = session_.key(l, g) + d * session_.capacity + at;
      for (int r = from; r < to; r++) keys[r] = k[r * stride + g * width + d];
    }
    for (int r = from; r < to; r++)
      std::copy_n(v + r * stride + g * width, width, session_.value(l, g) + (at + r) * width);
  }
}

// silu(gate) * up, rounded. A thread makes `unit` columns of all rows, so that what passes between the cores'
// caches is a byte or two a value and not three floats.
void Pass::gated(Turn& turn, const diffcode_layer& w, Bytes& input) {
  const Adapted map = adapted(w.gate_up, shape_.ffn, 2 * shape_.ffn);
  const int unit = model_.unit();
  const Rows rows = all_rows(input, map.base);
  low_ranks(turn.mine(), map, input);
  turn.each((shape_.ffn + unit - 1) / unit, [&](int piece) {
    gated_piece(turn.mine(), map, rows, piece * unit, view(w.down.base));
  });
  turn.meet();
}

void Pass::gated_piece(Scratch& mine, const Adapted& map, Rows input, int first, const Linear& reader) {
  const int ffn = shape_.ffn, unit = std::min(model_.unit(), ffn - first), stride = 2 * unit;
  // `y` is addressed by the output's number, so the buffer is shifted to the left.
  part(mine, map, input, first, first + unit, mine.piece.data() - first, stride, false);
  part(mine, map, input, ffn + first, ffn + first + unit, mine.piece.data() + unit - ffn - first, stride, false);
  for (int r = 0; r < count_; r++) {
    const float* gate = mine.piece.data() + static_cast<size_t>(r) * stride;
    ops_.silu_product(gate, gate + unit, mine.product.data(), unit);
    put(space_.product, mine.product.data(), r, reader, first, unit);
  }
}

// y = rows x map, and on some of the last rows low-rank terms on top; of the outputs those from `from` on.
void Pass::map(Turn& turn, const Adapted& map, Bytes& input, std::vector<float>& y, bool add, int from) {
  const int outputs = map.base.outputs, skipped = from / kPiece;
  const Rows rows = all_rows(input, map.base);
  low_ranks(turn.mine(), map, input);
  turn.each((outputs + kPiece - 1) / kPiece - skipped, [&](int piece) {
    const int first = (piece + skipped) * kPiece, last = std::min(outputs, first + kPiece);
    part(turn.mine(), map, rows, first, last, y.data(), outputs, add);
  });
  turn.meet();
}

// Their first halves, small enough for every thread to have its own.
void Pass::low_ranks(Scratch& mine, const Adapted& map, Bytes& input) {
  for (int b = 0; b < kBeside; b++) {
    const auto& [low, high, rows] = map.beside[b];
    if (rows == 0) continue;
    const Rows from = rows == count_ ? all_rows(input, map.base) : span_rows(input, map.base);
    ops_.linear(low, from, rows, 0, low.outputs, mine.low.data(), low.outputs, false);
    for (int p = 0; p < map.beside[b].parts(); p++)
      for (int r = 0; r < rows; r++)
        mine.low_rank[b][p].put(ops_, row(mine.low, r, low.outputs) + p * high.inputs, r, rows, high);
  }
}

void Pass::part(Scratch& mine, const Adapted& map, Rows input, int first, int last, float* y, size_t stride, bool add) {
  ops_.linear(map.base, input, count_, first, last, y, stride, add);
  for (int b = 0; b < kBeside; b++) {
    const LowRank& beside = map.beside[b];
    if (beside.rows == 0) continue;
    const Rows middle = mine.low_rank[b][map.part(beside, first)].rows(ops_.layout(beside.high, beside.rows));
    ops_.linear(beside.high, middle, beside.rows, first, last, y + (count_ - beside.rows) * stride, stride, true);
  }
}

Rows Pass::all_rows(Bytes& bytes, const Linear& reader) { return bytes.all.rows(ops_.layout(reader, count_)); }

Rows Pass::span_rows(Bytes& bytes, const Linear& reader) {
  const Rows all = all_rows(bytes, reader);
  return count_ > all.layout.tile ? bytes.spans.rows(ops_.layout(reader, spans_)) : all.last(spans_, count_, reader);
}

void Pass::put(Bytes& bytes, const float* from, int r, const Linear& reader, int column, int columns) {
  bytes.all.put(ops_, from, r, count_, reader, column, columns);
  const int span = r - (count_ - spans_);
  if (span >= 0 && count_ > ops_.layout(reader, count_).tile) bytes.spans.put(ops_, from, span, spans_, reader, column, columns);
}

}  // namespace diffcode
