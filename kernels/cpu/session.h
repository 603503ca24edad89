// What a step runs on: the model and the workspace, which all sessions share, and a session's context.
#pragma once
#include <mutex>
#include <utility>
#include <vector>

#include "engine.h"
#include "pool.h"

namespace diffcode {

constexpr int kAlign = 32;      // keys are read 32 at a time
constexpr int kMostRows = 256;  // of one pass through the layers; longer steps go in parts
// Up to so many rows every thread norms and rounds all of them for itself: that takes less time than to meet.
constexpr int kFewRows = 16;
constexpr int kBeside = 2;  // low-rank maps beside a map: the adapter's, and those of `undo`

inline Linear view(const diffcode_linear& l) {
  return {l.weights, l.scales, l.bias, l.outputs, l.inputs, l.group, l.real_outputs, l.bits};
}

template <typename T>
void make_room(std::vector<T>& v, size_t size) {
  if (v.size() < size) v.resize(size);
}

// Floats in pages of their own, zero at first, which go back to the system when they are freed. Contexts come and go at a
// dozen megabytes each: in malloc's heap they leave holes (90 MB of a language server after an hour's requests).
class Pages {
 public:
  Pages() = default;
  explicit Pages(size_t size);
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  void swap(Pages& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
};

// Rows as ops.h's `Rows` wants them.
class Quantised {
 public:
  void plan(size_t rows, size_t row_bytes);
  Rows rows(Layout layout) { return {values(), scales_.data(), sums_.data(), layout}; }
  // Columns from `column` on, `columns` of them, of row r of `count`, rounded as `reader` wants them and put where its tile
  // expects them.
  void put(const Ops& ops, const float* from, int r, int count, const Linear& reader, int column, int columns);
  void put(const Ops& ops, const float* from, int r, int count, const Linear& reader) {
    put(ops, from, r, count, reader, 0, reader.inputs);
  }

 private:
  int8_t* values() { return values_.data() + (-reinterpret_cast<uintptr_t>(values_.data()) & 63); }  // a line of the cache

  std::vector<int8_t> values_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
};

// Rounded rows, and the span rows among them once more, in tiles of their own, for the adapter, where they are many.
struct Bytes {
  Quantised all, spans;
  void plan(size_t rows, size_t row_bytes) {
    all.plan(rows, row_bytes);
    spans.plan(rows, row_bytes);
  }
};

// What one thread needs for itself.
struct Scratch {
  Bytes few;           // all rows where they are few
  Quantised low_rank[kBeside][3];  // the middle of a low-rank map, for each of its parts
  std::vector<float> row, low, piece, product, scores, logits;
};

// Of a head: its rows, and what every slice of the vocabulary said of them.
struct HeadScratch {
  Quantised rows;
  std::vector<Partial> partials;
};

// Of a successor map. What is short every thread computes for itself.
struct Follower {
  std::vector<int32_t> before;  // tokens, one an anchor
  std::vector<float> row, added;
  Quantised bytes;
};

struct SuccessorScratch {
  std::vector<float> ones, inner, logits;  // inner, logits: a row each for every span row
  Quantised states;
  std::vector<Follower> followers;
};

struct Model;

// What a step writes while it runs, allocated before it: the next step, of whichever session, writes it anew.
struct Workspace {
  std::vector<float> x, qkv, mixed, cos, sin, final_states;
  Bytes input, product;
  std::vector<Scratch> threads;
  std::vector<Counter> counters;
  HeadScratch base_head, span_head;
  SuccessorScratch successor;
  std::atomic<int> stop_at{0};  // the layer (counted through all passes) at which the step is given up

  explicit Workspace(int count) : threads(count) { successor.followers.resize(count); }
  // Room for passes of up to `rows` rows over contexts of `capacity` places.
  void plan(const Model& model, int rows, size_t capacity);
};

struct Model {
  diffcode_weights w;
  std::vector<diffcode_layer> layers;
  const Ops* ops;
  Pool pool;
  std::mutex alone;  // sessions share the threads and the workspace, one step at a time
  Workspace space;

  Model(const diffcode_weights& weights, const Ops* chosen, int threads);
  int unit() const { return unit_; }  // columns of the gated product that one thread makes and rounds at once
  int widest_rank() const { return widest_rank_; }
  size_t number() const { return layers[0].qkv.base.bits == 16 ? 2 : 1; }  // bytes of one in a rounded row

 private:
  int unit_, widest_rank_ = 0;
};

struct Session {
  Model* model;
  size_t capacity = 0;
  Pages keys, values;  // [L, G, K, capacity] and [L, G, capacity, K]

  explicit Session(Model* owner) : model(owner) {}
  float* key(int layer, int group) { return keys.data() + plane(layer, group); }
  float* value(int layer, int group) { return values.data() + plane(layer, group); }
  size_t bytes() const { return (keys.size() + values.size()) * sizeof(float); }
  // Room for a context of `length` places.
  void reserve(size_t length);
  // Take over the first `length` places of another session's context; this one has none yet.
  void copy(const Session& from, size_t length);

 private:
  // Put `length` places of planes that have room for `stride` of them where this session keeps them.
  void place(const Pages& from_keys, const Pages& from_values, size_t stride, size_t length);
  size_t plane(int layer, int group) const {
    const auto& s = model->w.shape;
    return (static_cast<size_t>(layer) * s.kv_heads + group) * s.head_width * capacity;
  }
};

// A thread and the phase it is in. All threads go through the same phases; each has a counter of its own, so that one
// barrier between two of them is enough.
struct Turn {
  Session& session;
  int thread, phase;

  Scratch& mine() { return session.model->space.threads[thread]; }
  void meet() { session.model->pool.barrier(); }
  template <typename Work>
  void each(int total, Work work) {
    Counter& counter = session.model->space.counters[phase++];
    for (int piece; (piece = counter.take()) < total;) work(piece);
  }
};

}  // namespace diffcode
