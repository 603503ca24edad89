// What stands at the guessed rows' places: the vocabulary's logits, a slice at a time, boiled down at once.
#pragma once
#include <algorithm>

#include "session.h"

namespace diffcode {

// Logits of a few rows over the whole vocabulary or the kept one.
class Head {
 public:
  static constexpr int kPhases = 2;

  // `ids`: token of each output, or null. The logit of output `favoured` counts as larger where tokens are chosen.
  Head(Model& model, HeadScratch& scratch, const diffcode_linear& linear, const int32_t* ids, int favoured,
       float favour, float temperature);
  void plan(int rows);  // before any thread calls `work`
  // All threads call it; then thread 0 has the guesses.
  void work(Turn& turn, const float* states, int count, const uint8_t* allowed, const float* noise,
            diffcode_guess* guesses);

  // The parts of it. Slices of the vocabulary are numbered, up to kChunks of them.
  int outputs() const { return linear_.real_outputs; }
  int padded() const { return linear_.outputs; }
  int first(int slice) const { return std::min(padded(), slice * slice_); }
  void round(Turn& turn, const float* states, int count);
  // `y` is addressed by the output's number.
  void logits(int slice, int count, float* y, size_t stride);
  // What the slice says of a row; `logits`, `allowed` and `noise` are the whole row's.
  void boil(int slice, int row, float* logits, const uint8_t* allowed, const float* noise);
  diffcode_guess guess(int row) const;

 private:
  void prefer(Partial& found, const float* logits, const float* noise) const;

  const Ops& ops_;
  const Linear linear_;
  const int32_t* ids_;
  int slice_;
  const int favoured_;
  const float favour_, temperature_;
  HeadScratch& scratch_;
};

// The span rows' heads: all at once, or, with a successor map, window place by window place. The map adds to a state,
// and logits are linear: the head is read once for all rows, and a place costs the narrow head of what the map adds.
class SpanHeads {
 public:
  SpanHeads(Session& session, const diffcode_step& step);
  void plan();
  void work(Turn& turn, const float* states, const diffcode_guess* base, diffcode_guess* spans);
  static int phases(const diffcode_step& step) { return 4 + 2 * step.window; }

 private:
  void all_places(Turn& turn, const float* states);
  void follow(Turn& turn, int place);
  float* logits(int row) { return mine_.logits.data() + static_cast<size_t>(row) * head_.padded(); }

  Model& model_;
  const diffcode_step& step_;
  SuccessorScratch& mine_;
  Head head_;
  const bool follows_;  // there is a successor map
};

}  // namespace diffcode
