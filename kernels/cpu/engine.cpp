// A whole denoising step: all layers, attention, adapter and heads behind one call. Every thread runs the same program
// and meets the others at barriers; pieces are handed out by counters, results do not depend on who computes them.
#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "pool.h"

namespace diffcode {
namespace {

constexpr int kPiece = 64;      // outputs of a linear map that are handed out at once
constexpr int kAlign = 32;      // keys are read 32 at a time
constexpr int kMostRows = 256;  // of one pass through the layers; longer steps go in parts
constexpr int kPhases = 24;     // of a layer, at most

Linear view(const diffcode_linear& l) {
  return {l.weights, l.scales, l.bias, l.outputs, l.inputs, l.group, l.real_outputs};
}

float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

}  // namespace

struct Model {
  diffcode_weights w;
  std::vector<diffcode_layer> layers;
  const Ops* ops;
  Pool pool;
  std::mutex alone;  // sessions share the threads, one step at a time

  Model(const diffcode_weights& weights, const Ops* chosen, int threads)
      : w(weights), layers(weights.layers, weights.layers + weights.shape.layers), ops(chosen), pool(threads) {
    w.layers = layers.data();
  }
};

// Rows in 8 bits, with room for `rows` of the widest map.
struct Quantised {
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<int32_t> offsets;
  void reserve(size_t rows, size_t width) {
    if (values.size() < rows * width) {
      values.resize(rows * width);
      scales.resize(rows * width / 4);
      offsets.resize(rows * width / 4);
    }
  }
  Rows rows() { return {values.data(), scales.data(), offsets.data()}; }
  // Row r of `count`, put where its tile expects it.
  void put(const Ops& ops, const float* from, int r, int count, int width, int group) {
    const int first = r / kTile * kTile, together = std::min(kTile, count - first);
    const size_t groups = width / group;
    ops.quantise(from, width, group, values.data() + static_cast<size_t>(first) * width + (r - first) * 4,
                 static_cast<size_t>(together) * 4, scales.data() + r * groups, offsets.data() + r * groups);
  }
};

struct Session {
  Model* model;
  size_t capacity = 0;
  std::vector<float> keys, values;  // [L, G, K, capacity] and [L, G, capacity, K]
  // Scratch of one pass, allocated once.
  std::vector<float> x, normed, qkv, mixed, gate_up, product, low, cos, sin, scores, final_states, logits;
  Quantised quantised, span_quantised, low_quantised;  // all rows; the span rows again, for the adapter; its middle
    std::vector<Counter> counters;

  explicit Session(Model* owner) : model(owner), counters(owner->w.shape.layers * kPhases + 8) {}
  float* key(int layer, int group) {
    const auto& s = model->w.shape;
    return keys.data() + (static_cast<size_t>(layer) * s.kv_heads + group) * s.head_width * capacity;
  }
  float* value(int layer, int group) {
    const auto& s = model->w.shape;
    return values.data() + (static_cast<size_t>(layer) * s.kv_heads + group) * s.head_width * capacity;
  }
  size_t score_stride() const { return capacity + 2 * kAlign; }  // of one head
  void reserve(size_t length);
  void plan(int rows);
};

void Session::reserve(size_t length) {
  if (length <= capacity) return;
  const auto& s = model->w.shape;
  const size_t wanted = (std::max(length, capacity * 2) + kAlign - 1) / kAlign * kAlign;
  const size_t planes = static_cast<size_t>(s.layers) * s.kv_heads, width = s.head_width;
  std::vector<float> wider_keys(planes * width * wanted), wider_values(planes * width * wanted);
  for (size_t p = 0; p < planes; p++) {
    for (size_t d = 0; d < width; d++)
      std::copy_n(keys.data() + (p * width + d) * capacity, capacity, wider_keys.data() + (p * width + d) * wanted);
    std::copy_n(values.data() + p * width * capacity, capacity * width, wider_values.data() + p * width * wanted);
  }
  keys.swap(wider_keys);
  values.swap(wider_values);
  capacity = wanted;
}

void Session::plan(int rows) {
  const auto& s = model->w.shape;
  const size_t count = rows, heads = s.heads, threads = model->pool.threads();
  const auto& first = model->layers[0];
  auto room = [](std::vector<float>& v, size_t size) {
    if (v.size() < size) v.resize(size);
  };
  room(x, count * s.width);
  room(normed, count * s.width);
  room(qkv, count * first.qkv.outputs);
  room(mixed, count * heads * s.head_width);
  room(gate_up, count * first.gate_up.outputs);
  room(product, count * s.ffn);
  size_t rank = 32;
  for (const auto* l : {&first.qkv_low, &first.out_low, &first.gate_up_low, &first.down_low})
    rank = std::max<size_t>(rank, l->outputs);
  room(low, count * rank);
  room(cos, count * s.head_width);
  room(sin, count * s.head_width);
  room(scores, threads * heads * score_stride());
  const size_t widest = std::max<size_t>({static_cast<size_t>(s.ffn), static_cast<size_t>(s.width) * 2, heads * s.head_width});
  quantised.reserve(count, widest);
  span_quantised.reserve(count, widest);
  low_quantised.reserve(count, rank);
}

// One pass of up to kMostRows rows through all layers, on every thread.
class Pass {
 public:
  Pass(Session& session, const diffcode_step& step, int first, int count)
      : session_(session), model_(*session.model), ops_(*model_.ops), shape_(model_.w.shape), step_(step),
        first_(first), count_(count),
        spans_(std::max(0, std::min(count, first + count - (step.rows - step.span_rows)))) {}

  bool run() {
    for (Counter& counter : session_.counters) counter.reset();
    model_.pool.run([this](int thread) { work(Turn{thread, 0}); });
    return stop_at_ == kNever;
  }

 private:
  static constexpr int kNever = 1 << 30;

  // A thread and the phase it is in. All threads go through the same phases; each has a counter of its own, so that one
  // barrier between two of them is enough.
  struct Turn {
    int thread, phase;
  };

  void work(Turn turn) {
    each(turn, count_, [&](int r) { begin(r); });
    model_.pool.barrier();
    for (int l = 0; l < shape_.layers; l++) {
      if (turn.thread == 0 && step_.cancelled != nullptr && *step_.cancelled != 0) stop_at_ = l;
      layer(turn, l);
      if (stop_at_ <= l) return;  // said before this layer's barriers, so all threads agree
    }
    each(turn, count_, [&](int r) {
      float* y = session_.final_states.data() + static_cast<size_t>(first_ + r) * shape_.width;
      ops_.rms_norm(row(session_.x, r, shape_.width), model_.w.norm, y, shape_.width, shape_.norm_eps);
    });
  }

  // A row's input vector and rotary angles.
  void begin(int r) {
    const int width = shape_.width, half = shape_.head_width / 2;
    float* x = row(session_.x, r, width);
    const int32_t token = step_.tokens[first_ + r];
    if (token < 0) {
      std::copy_n(model_.w.mask, width, x);
    } else {
      const uint16_t* from = model_.w.embedding + static_cast<size_t>(token) * width;
      for (int i = 0; i < width; i++) x[i] = from_bf16(from[i]);
    }
    for (int i = 0; i < half; i++) {
      const float angle = static_cast<float>(step_.positions[first_ + r]) * model_.w.frequencies[i];
      row(session_.cos, r, half)[i] = std::cos(angle);
      row(session_.sin, r, half)[i] = std::sin(angle);
    }
  }

  void layer(Turn& turn, int l) {
    const diffcode_layer& w = model_.layers[l];
    normed(turn, w.input_norm, w.qkv.group);
    map(turn, w.qkv, w.qkv_low, w.qkv_high, session_.qkv, false);
    each(turn, count_, [&](int r) { place(l, r); });
    model_.pool.barrier();
    attention(turn, l);
    quantised(turn, session_.mixed, shape_.heads * shape_.head_width, w.out.group);
    map(turn, w.out, w.out_low, w.out_high, session_.x, true);
    normed(turn, w.post_norm, w.gate_up.group);
    map(turn, w.gate_up, w.gate_up_low, w.gate_up_high, session_.gate_up, false);
    each(turn, count_, [&](int r) {
      const float* from = row(session_.gate_up, r, w.gate_up.outputs);
      float* y = row(session_.product, r, shape_.ffn);
      ops_.silu_product(from, from + shape_.ffn, y, shape_.ffn);
      to_bytes(r, y, shape_.ffn, w.down.group);
    });
    model_.pool.barrier();
    map(turn, w.down, w.down_low, w.down_high, session_.x, true);
  }

  void normed(Turn& turn, const float* weight, int group) {
    const int width = shape_.width;
    each(turn, count_, [&](int r) {
      float* y = row(session_.normed, r, width);
      ops_.rms_norm(row(session_.x, r, width), weight, y, width, shape_.norm_eps);
      to_bytes(r, y, width, group);
    });
    model_.pool.barrier();
  }

  void quantised(Turn& turn, std::vector<float>& from, int width, int group) {
    each(turn, count_, [&](int r) { to_bytes(r, row(from, r, width), width, group); });
    model_.pool.barrier();
  }

  void to_bytes(int r, const float* from, int width, int group) {
    session_.quantised.put(ops_, from, r, count_, width, group);
    const int span = r - (count_ - spans_);
    if (span >= 0) session_.span_quantised.put(ops_, from, span, spans_, width, group);
  }

  // y = rows x linear, and on the span rows the adapter's low-rank term on top.
  void map(Turn& turn, const diffcode_linear& linear, const diffcode_linear& down, const diffcode_linear& up,
           std::vector<float>& y, bool add) {
    const Rows rows = session_.quantised.rows();
    const Linear base = view(linear), low = view(down), high = view(up);
    pieces(turn, base.outputs, [&](int first, int last) {
      ops_.linear(base, rows, count_, first, last, y.data(), base.outputs, add);
    });
    const bool adapted = low.outputs != 0 && spans_ != 0;
    const int plain = count_ - spans_;
    if (adapted) {
      pieces(turn, low.outputs, [&](int first, int last) {
        ops_.linear(low, session_.span_quantised.rows(), spans_, first, last, session_.low.data(), low.outputs, false);
      });
    }
    model_.pool.barrier();
    if (!adapted) return;
    each(turn, spans_, [&](int r) {
      session_.low_quantised.put(ops_, row(session_.low, r, low.outputs), r, spans_, high.inputs, high.group);
    });
    model_.pool.barrier();
    pieces(turn, high.outputs, [&](int first, int last) {
      ops_.linear(high, session_.low_quantised.rows(), spans_, first, last,
                  y.data() + static_cast<size_t>(plain) * base.outputs, base.outputs, true);
    });
    model_.pool.barrier();
  }

  // Rotary embedding, and the row's keys and values into the cache.
  void place(int l, int r) {
    const int width = shape_.head_width, half = width / 2;
    float* q = row(session_.qkv, r, model_.layers[l].qkv.outputs);
    float* k = q + shape_.heads * width;
    const float* v = k + shape_.kv_heads * width;
    const float *cos = row(session_.cos, r, half), *sin = row(session_.sin, r, half);
    ops_.rotate(q, cos, sin, shape_.heads, width);
    ops_.rotate(k, cos, sin, shape_.kv_heads, width);
    const size_t at = static_cast<size_t>(step_.context) + first_ + r;
    for (int g = 0; g < shape_.kv_heads; g++) {
      float* keys = session_.key(l, g) + at;
      for (int d = 0; d < width; d++) keys[d * session_.capacity] = k[g * width + d];
      std::copy_n(v + g * width, width, session_.value(l, g) + at * width);
    }
  }

  void attention(Turn& turn, int l) {
    const int width = shape_.head_width, heads = shape_.heads / shape_.kv_heads;
    float* scores = session_.scores.data() + static_cast<size_t>(turn.thread) * shape_.heads * session_.score_stride();
    each(turn, count_ * shape_.kv_heads, [&](int piece) {
      const int r = piece / shape_.kv_heads, g = piece % shape_.kv_heads;
      const float* q = row(session_.qkv, r, model_.layers[l].qkv.outputs) + g * heads * width;
      float* y = row(session_.mixed, r, shape_.heads * width) + g * heads * width;
      const uint8_t* seen = step_.seen + static_cast<size_t>(first_ + r) * step_.rows;
      ops_.attend(q, session_.key(l, g), session_.value(l, g), session_.capacity, step_.context, first_ + count_, seen,
                  heads, width, scores, y);
    });
    model_.pool.barrier();
  }

  template <typename Work>
  void each(Turn& turn, int total, Work work) {
    Counter& counter = session_.counters[turn.phase++];
    for (int piece; (piece = counter.take()) < total;) work(piece);
  }

  template <typename Work>
  void pieces(Turn& turn, int outputs, Work work) {
    each(turn, (outputs + kPiece - 1) / kPiece,
         [&](int piece) { work(piece * kPiece, std::min(outputs, (piece + 1) * kPiece)); });
  }

  float* row(std::vector<float>& of, int r, size_t width) { return of.data() + static_cast<size_t>(r) * width; }

  Session& session_;
  Model& model_;
  const Ops& ops_;
  const diffcode_shape& shape_;
  const diffcode_step& step_;
  const int first_, count_, spans_;
  std::atomic<int> stop_at_{kNever};
};

// Logits of a few rows, a slice of the vocabulary at a time, boiled down at once.
class Head {
 public:
  Head(Model& model, const diffcode_linear& linear, const int32_t* ids) : model_(model), linear_(view(linear)), ids_(ids) {}

  void run(const float* states, int count, const uint8_t* allowed, const float* noise, float temperature,
           diffcode_guess* guesses) {
    const int width = linear_.inputs;
    rows_.reserve(count, width);
    for (int r = 0; r < count; r++)
      rows_.put(*model_.ops, states + static_cast<size_t>(r) * width, r, count, width, linear_.group);
    const int slice = slice_size();
    partials_.resize(static_cast<size_t>(count) * kChunks);
    logits_.resize(static_cast<size_t>(model_.pool.threads()) * count * slice);
    Counter counter;
    model_.pool.run([&](int thread) {
      float* mine = logits_.data() + static_cast<size_t>(thread) * count * slice;
      for (int chunk; (chunk = counter.take()) < kChunks;) {
        const int first = chunk * slice, last = std::min(linear_.outputs, first + slice);
        if (first >= linear_.outputs) continue;
        // `y` is addressed by the output's number, so the slice's buffer is shifted to the left.
        model_.ops->linear(linear_, rows_.rows(), count, first, last, mine - first, slice, false);
        const int real = std::min(last, linear_.real_outputs) - first;
        for (int r = 0; r < count && real > 0; r++) {
          if (allowed != nullptr) bar(mine + static_cast<size_t>(r) * slice, allowed + static_cast<size_t>(r) * linear_.real_outputs + first, real);
          const float* here = noise != nullptr ? noise + static_cast<size_t>(r) * linear_.real_outputs + first : nullptr;
          partials_[static_cast<size_t>(r) * kChunks + chunk] =
              model_.ops->head(mine + static_cast<size_t>(r) * slice, real, first, here, temperature);
        }
      }
    });
    const int used = (linear_.real_outputs + slice - 1) / slice;
    for (int r = 0; r < count; r++) {
      guesses[r] = merge(partials_.data() + static_cast<size_t>(r) * kChunks, used);
      if (ids_ != nullptr) guesses[r].token = ids_[guesses[r].token];
    }
  }

  static diffcode_guess merge(const Partial* partials, int count) {
    const Partial* chosen = partials;
    double top = -1e30, second = -1e30, sum = 0, weighted = 0;
    for (int i = 0; i < count; i++) {
      if (partials[i].ranked > chosen->ranked) chosen = partials + i;
      second = std::max<double>(second, std::min<double>(top, partials[i].top));
      second = std::max<double>(second, partials[i].second);
      top = std::max<double>(top, partials[i].top);
    }
    for (int i = 0; i < count; i++) {
      const double lower = partials[i].top - top, share = std::exp(lower);
      sum += share * partials[i].sum;
      weighted += share * (partials[i].weighted + lower * partials[i].sum);
    }
    diffcode_guess guess;
    guess.token = chosen->token;
    guess.probability = static_cast<float>(std::exp(chosen->ranked_logit - top) / sum);
    guess.margin = static_cast<float>((1.0 - std::exp(second - top)) / sum);
    guess.entropy = static_cast<float>(std::log(sum) - weighted / sum);
    return guess;
  }

 private:
  static void bar(float* logits, const uint8_t* allowed, int count) {
    for (int i = 0; i < count; i++)
      if (!allowed[i]) logits[i] = -1e30f;
  }

  int slice_size() const {
    const int blocks = (linear_.outputs / kBlock + kChunks - 1) / kChunks;
    return std::max(1, blocks) * kBlock;
  }

  Model& model_;
  const Linear linear_;
  const int32_t* ids_;
  Quantised rows_;
  std::vector<float> logits_;
  std::vector<Partial> partials_;
};

// The span rows' heads, window place by window place where there is a successor map, else all at once.
void guess_spans(Model& model, const diffcode_step& step, const float* states, const diffcode_guess* base,
                 diffcode_guess* spans) {
  const auto& w = model.w;
  const int width = w.shape.width, anchors = step.anchors, window = step.window;
  Head head(model, w.span_head, w.kept);
  const size_t row_noise = w.span_head.real_outputs;
  if (w.shape.successor == 0) return head.run(states, anchors * window, nullptr, step.span_noise, step.temperature, spans);
  std::vector<int32_t> before(anchors);
  for (int a = 0; a < anchors; a++) before[a] = base[step.anchor_base[a]].token;
  std::vector<float> both(2 * width), inner(w.successor_down.outputs), ones(std::max(2 * width, w.successor_down.outputs), 1.0f);
  std::vector<float> x(static_cast<size_t>(anchors) * width), noise;
  std::vector<diffcode_guess> found(anchors);
  Quantised bytes;
  bytes.reserve(1, std::max(2 * width, w.successor_down.outputs));
  for (int i = 0; i < window; i++) {
    for (int a = 0; a < anchors; a++) {
      const int32_t token = step.shown[i] >= 0 ? step.shown[i] : before[a];
      float* mine = x.data() + static_cast<size_t>(a) * width;
      std::copy_n(states + (static_cast<size_t>(a) * window + i) * width, width, mine);
      for (int d = 0; d < width; d++) both[width + d] = from_bf16(w.embedding[static_cast<size_t>(token) * width + d]);
      model.ops->rms_norm(mine, ones.data(), both.data(), width, w.shape.norm_eps);
      model.ops->rms_norm(both.data() + width, ones.data(), both.data() + width, width, w.shape.norm_eps);
      const Linear down = view(w.successor_down), up = view(w.successor_up);
      bytes.put(*model.ops, both.data(), 0, 1, 2 * width, down.group);
      model.ops->linear(down, bytes.rows(), 1, 0, down.outputs, inner.data(), down.outputs, false);
      model.ops->silu_product(inner.data(), ones.data(), inner.data(), up.inputs);
      bytes.put(*model.ops, inner.data(), 0, 1, up.inputs, up.group);
      model.ops->linear(up, bytes.rows(), 1, 0, up.outputs, mine, width, true);
    }
    if (step.span_noise != nullptr) {
      noise.resize(anchors * row_noise);
      for (int a = 0; a < anchors; a++)
        std::copy_n(step.span_noise + (static_cast<size_t>(a) * window + i) * row_noise, row_noise, noise.data() + a * row_noise);
    }
    head.run(x.data(), anchors, nullptr, step.span_noise != nullptr ? noise.data() : nullptr, step.temperature, found.data());
    for (int a = 0; a < anchors; a++) {
      spans[a * window + i] = found[a];
      before[a] = found[a].token;
    }
  }
}

}  // namespace diffcode

using diffcode::Model;
using diffcode::Session;

extern "C" {

int32_t diffcode_version() { return kVersion; }

const char* diffcode_isa() {
  const diffcode::Ops* ops = diffcode::best_ops();
  return ops != nullptr ? ops->name : nullptr;
}

void* diffcode_model_new(const diffcode_weights* weights, int32_t threads) {
  const diffcode::Ops* ops = diffcode::best_ops();
  if (ops == nullptr) return nullptr;
  return new (std::nothrow) Model(*weights, ops, std::max(1, threads));
}

void diffcode_model_free(void* model) { delete static_cast<Model*>(model); }

void* diffcode_session_new(void* model) { return new (std::nothrow) Session(static_cast<Model*>(model)); }

void diffcode_session_free(void* session) { delete static_cast<Session*>(session); }

int64_t diffcode_session_bytes(void* session) {
  const Session& s = *static_cast<Session*>(session);
  return static_cast<int64_t>((s.keys.size() + s.values.size()) * sizeof(float));
}

int32_t diffcode_session_reserve(void* session, int32_t length) try {
  static_cast<Session*>(session)->reserve(length);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

int32_t diffcode_step_run(void* handle, const diffcode_step* step, diffcode_guess* base, diffcode_guess* spans,
                          float* hidden) try {
  Session& session = *static_cast<Session*>(handle);
  Model& model = *session.model;
  std::lock_guard<std::mutex> lock(model.alone);
  const size_t width = model.w.shape.width;
  session.reserve(static_cast<size_t>(step->context) + step->rows);
  if (session.final_states.size() < step->rows * width) session.final_states.resize(step->rows * width);
  for (int first = 0; first < step->rows;) {
    // Span rows see each other both ways, so they are never cut apart from what they see.
    const int left = step->rows - first, chain = step->rows - step->span_rows - first;
    const int count = left <= diffcode::kMostRows ? left : std::min(diffcode::kMostRows, chain);
    session.plan(count);
    if (!diffcode::Pass(session, *step, first, count).run()) return 1;
    first += count;
  }
  if (hidden != nullptr) std::copy_n(session.final_states.data(), step->rows * width, hidden);
  if (step->base_rows > 0) {
    diffcode::Head head(model, model.w.head, nullptr);
    head.run(session.final_states.data() + step->base_first * width, step->base_rows, step->allowed,
             step->base_noise, step->temperature, base);
  }
  if (step->span_rows > 0)
    diffcode::guess_spans(model, *step, session.final_states.data() + (step->rows - step->span_rows) * width, base, spans);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

int32_t diffcode_linear_run(const diffcode_linear* packed, const float* x, int32_t rows, float* y) try {
  const diffcode::Ops* ops = diffcode::best_ops();
  const diffcode::Linear linear = diffcode::view(*packed);
  const size_t width = linear.inputs;
  diffcode::Quantised bytes;
  bytes.reserve(rows, width);
  for (int r = 0; r < rows; r++) bytes.put(*ops, x + r * width, r, rows, linear.inputs, linear.group);
  ops->linear(linear, bytes.rows(), rows, 0, linear.outputs, y, linear.outputs, false);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}
}
