#include "heads.h"

#include <algorithm>
#include <cmath>

namespace diffcode {
namespace {

diffcode_guess merge(const Partial* partials, int count) {
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

}  // namespace

Head::Head(Model& model, HeadScratch& scratch, const diffcode_linear& linear, const int32_t* ids, int favoured,
           float favour, float temperature)
    : ops_(*model.ops), linear_(view(linear)), ids_(ids), favoured_(favoured), favour_(favour),
      temperature_(temperature), scratch_(scratch) {
  slice_ = std::max(1, (linear_.outputs / kBlock + kChunks - 1) / kChunks) * kBlock;
}

void Head::plan(int rows) {
  scratch_.rows.plan(rows, linear_.row_bytes());
  make_room(scratch_.partials, static_cast<size_t>(rows) * kChunks);
}

void Head::work(Turn& turn, const float* states, int count, const uint8_t* allowed, const float* noise,
                diffcode_guess* guesses) {
  std::vector<float>& logits_of = turn.mine().logits;
  make_room(logits_of, static_cast<size_t>(count) * slice_);
  round(turn, states, count);
  turn.meet();
  turn.each(kChunks, [&](int slice) {
    logits(slice, count, logits_of.data() - first(slice), slice_);
    for (int r = 0; r < count; r++) {
      const size_t at = static_cast<size_t>(r) * outputs();
      boil(slice, r, logits_of.data() - first(slice) + static_cast<size_t>(r) * slice_,
           allowed != nullptr ? allowed + at : nullptr, noise != nullptr ? noise + at : nullptr);
    }
  });
  turn.meet();
  for (int r = 0; turn.thread == 0 && r < count; r++) guesses[r] = guess(r);
}

void Head::round(Turn& turn, const float* states, int count) {
  turn.each(count, [&](int r) {
    scratch_.rows.put(ops_, states + static_cast<size_t>(r) * linear_.inputs, r, count, linear_);
  });
}

void Head::logits(int slice, int count, float* y, size_t stride) {
  ops_.linear(linear_, scratch_.rows.rows(ops_.layout(linear_, count)), count, first(slice), first(slice + 1), y, stride, false);
}

void Head::boil(int slice, int row, float* logits, const uint8_t* allowed, const float* noise) {
  const int from = first(slice), last = std::min(first(slice + 1), outputs());
  if (from >= last) return;
  for (int i = from; allowed != nullptr && i < last; i++)
    if (!allowed[i]) logits[i] = -1e30f;
  Partial& found = scratch_.partials[static_cast<size_t>(row) * kChunks + slice];
  found = ops_.head(logits + from, last - from, from, noise != nullptr ? noise + from : nullptr, temperature_);
  if (favoured_ >= from && favoured_ < last && logits[favoured_] > -1e30f) prefer(found, logits, noise);
}

void Head::prefer(Partial& found, const float* logits, const float* noise) const {
  const float logit = logits[favoured_];
  const float ranked = noise != nullptr ? (logit + favour_) / temperature_ + noise[favoured_] : logit + favour_;
  const bool ties = ranked == found.ranked && favoured_ < found.token;
  if (ranked <= found.ranked && !ties && found.token != favoured_) return;
  found.ranked = ranked;
  found.ranked_logit = logit;
  found.token = favoured_;
}

diffcode_guess Head::guess(int row) const {
  diffcode_guess guess = merge(scratch_.partials.data() + static_cast<size_t>(row) * kChunks,
                               (outputs() + slice_ - 1) / slice_);
  if (ids_ != nullptr) guess.token = ids_[guess.token];
  return guess;
}

SpanHeads::SpanHeads(Session& session, const diffcode_step& step)
    : model_(*session.model), step_(step), mine_(model_.space.successor),
      head_(model_, model_.space.span_head, model_.w.span_head, model_.w.kept, step.span_favoured, step.span_favour,
            step.temperature),
      follows_(model_.w.shape.successor != 0 && step.anchors != 0) {}

void SpanHeads::plan() {
  const auto& w = model_.w;
  head_.plan(step_.span_rows);
  if (!follows_) return;
  const size_t width = w.shape.width, inner = w.successor_token.outputs, widest = std::max(width, inner);
  const size_t rows = step_.span_rows, anchors = step_.anchors;
  mine_.ones.assign(widest, 1.0f);
  mine_.states.plan(rows, width * model_.number());
  make_room(mine_.inner, rows * inner);
  make_room(mine_.logits, rows * head_.padded());
  for (Follower& follower : mine_.followers) {
    make_room(follower.before, anchors);
    make_room(follower.row, widest);
    make_room(follower.added, anchors * w.successor_up.outputs);
    follower.bytes.plan(anchors, widest * model_.number());
  }
}

void SpanHeads::work(Turn& turn, const float* states, const diffcode_guess* base, diffcode_guess* spans) {
  if (!follows_) return head_.work(turn, states, step_.span_rows, nullptr, step_.span_noise, spans);
  all_places(turn, states);
  std::vector<int32_t>& before = mine_.followers[turn.thread].before;
  for (int a = 0; a < step_.anchors; a++) before[a] = base[step_.anchor_base[a]].token;
  for (int place = 0; place < step_.window; place++) {
    follow(turn, place);
    for (int a = 0; a < step_.anchors; a++) {
      const int row = a * step_.window + place;
      const diffcode_guess guess = head_.guess(row);
      before[a] = guess.token;
      if (turn.thread == 0) spans[row] = guess;
    }
  }
}

// What does not depend on the tokens before: the states' logits, and their part of the successor map.
void SpanHeads::all_places(Turn& turn, const float* states) {
  const Ops& ops = *model_.ops;
  const Linear down = view(model_.w.successor_state);
  const int rows = step_.span_rows, width = down.inputs, pieces = down.outputs / kBlock;
  head_.round(turn, states, rows);
  turn.each(rows, [&](int r) {
    float* normed = mine_.followers[turn.thread].row.data();
    ops.rms_norm(states + static_cast<size_t>(r) * width, mine_.ones.data(), normed, width, model_.w.shape.norm_eps);
    mine_.states.put(ops, normed, r, rows, down);
  });
  turn.meet();
  turn.each(pieces + kChunks, [&](int piece) {
    if (piece >= pieces) return head_.logits(piece - pieces, rows, mine_.logits.data(), head_.padded());
    ops.linear(down, mine_.states.rows(ops.layout(down, rows)), rows, piece * kBlock, (piece + 1) * kBlock, mine_.inner.data(), down.outputs,
               false);
  });
  turn.meet();
}

// Tells the rows of one window place which tokens stand there, and boils their logits down.
void SpanHeads::follow(Turn& turn, int place) {
  const auto& w = model_.w;
  const Ops& ops = *model_.ops;
  const Linear token = view(w.successor_token), up = view(w.successor_up), head = view(w.successor_head);
  const int anchors = step_.anchors, width = token.inputs, inner = token.outputs;
  Follower& mine = mine_.followers[turn.thread];
  for (int a = 0; a < anchors; a++) {
    const size_t stands = step_.shown[place] >= 0 ? step_.shown[place] : mine.before[a];
    for (int d = 0; d < width; d++) mine.row[d] = from_bf16(w.embedding[stands * width + d]);
    ops.rms_norm(mine.row.data(), mine_.ones.data(), mine.row.data(), width, w.shape.norm_eps);
    mine.bytes.put(ops, mine.row.data(), a, anchors, token);
  }
  // Rows of one place lie a window apart.
  float* sums = mine_.inner.data() + static_cast<size_t>(place) * inner;
  const size_t apart = static_cast<size_t>(step_.window) * inner;
  turn.each(inner / kBlock, [&](int piece) {
    ops.linear(token, mine.bytes.rows(ops.layout(token, anchors)), anchors, piece * kBlock, (piece + 1) * kBlock, sums, apart, true);
  });
  turn.meet();
  for (int a = 0; a < anchors; a++) {
    ops.silu_product(sums + a * apart, mine_.ones.data(), mine.row.data(), up.inputs);
    mine.bytes.put(ops, mine.row.data(), a, anchors, up);
  }
  ops.linear(up, mine.bytes.rows(ops.layout(up, anchors)), anchors, 0, up.outputs, mine.added.data(), up.outputs, false);
  for (int a = 0; a < anchors; a++)
    mine.bytes.put(ops, mine.added.data() + static_cast<size_t>(a) * up.outputs, a, anchors, head);
  turn.each(kChunks, [&](int slice) {
    ops.linear(head, mine.bytes.rows(ops.layout(head, anchors)), anchors, head_.first(slice), head_.first(slice + 1), logits(place),
               static_cast<size_t>(step_.window) * head_.padded(), true);
    for (int row = place; row < step_.span_rows; row += step_.window) {
      const float* noise = step_.span_noise;
      if (noise != nullptr) noise += static_cast<size_t>(row) * head_.outputs();
      head_.boil(slice, row, logits(row), nullptr, noise);
    }
  });
  turn.meet();
}

}  // namespace diffcode
