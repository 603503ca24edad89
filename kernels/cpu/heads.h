// What stands at the guessed rows' places: the vocabulary's logits, a slice at a time, boiled down at once.
#pragma once
#include "session.h"

namespace diffcode {

// Logits of a few rows over the whole vocabulary or the kept one. All threads call `work`; then thread 0 has the guesses.
class Head {
 public:
  static constexpr int kPhases = 2;

  // `ids`: token of each output, or null. The logit of output `favoured` counts as larger where tokens are chosen.
  Head(Model& model, HeadScratch& scratch, const diffcode_linear& linear, const int32_t* ids, int favoured,
       float favour);
  void plan(int rows);  // before any thread calls `work`
  void work(Turn& turn, const float* states, int count, const uint8_t* allowed, const float* noise, float temperature,
            diffcode_guess* guesses);

 private:
  void prefer(Partial& found, const float* logits, int first, const float* noise, float temperature) const;
  void slice(Scratch& mine, int chunk, int count, const uint8_t* allowed, const float* noise, float temperature);

  const Ops& ops_;
  const Linear linear_;
  const int32_t* ids_;
  int slice_;
  const int favoured_;
  const float favour_;
  HeadScratch& scratch_;
};

// The span rows' heads: all at once, or, with a successor map, window place by window place.
class SpanHeads {
 public:
  SpanHeads(Session& session, const diffcode_step& step);
  void plan();
  void work(Turn& turn, const float* states, const diffcode_guess* base, diffcode_guess* spans);
  static int phases(const diffcode_step& step) { return Head::kPhases * step.window; }

 private:
  void follow(int place, const float* states);
  void one(int anchor, int token, const float* state);

  Model& model_;
  const diffcode_step& step_;
  SuccessorScratch& mine_;
  Head head_;
  const bool follows_;  // there is a successor map
};

}  // namespace diffcode
