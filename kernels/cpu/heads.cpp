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
           float favour)
    : ops_(*model.ops), linear_(view(linear)), ids_(ids), favoured_(favoured), favour_(favour), scratch_(scratch) {
  slice_ = std::max(1, (linear_.outputs / kBlock + kChunks - 1) / kChunks) * kBlock;
}

void Head::plan(int rows) {
  scratch_.rows.plan(rows, linear_.inputs);
  make_room(scratch_.partials, static_cast<size_t>(rows) * kChunks);
}

void Head::work(Turn& turn, const float* states, int count, const uint8_t* allowed, const float* noise,
                float temperature, diffcode_guess* guesses) {
  const int width = linear_.inputs;
  make_room(turn.mine().logits, static_cast<size_t>(count) * slice_);
  if (turn.thread == 0)
    for (int r = 0; r < count; r++)
      scratch_.rows.put(ops_, states + static_cast<size_t>(r) * width, r, count, width, linear_.group);
  turn.meet();
  turn.each(kChunks, [&](int chunk) { slice(turn.mine(), chunk, count, allowed, noise, temperature); });
  turn.meet();
  if (turn.thread != 0) return;
  const int used = (linear_.real_outputs + slice_ - 1) / slice_;
  for (int r = 0; r < count; r++) {
    guesses[r] = merge(scratch_.partials.data() + static_cast<size_t>(r) * kChunks, used);
    if (ids_ != nullptr) guesses[r].token = ids_[guesses[r].token];
  }
}

void Head::slice(Scratch& mine, int chunk, int count, const uint8_t* allowed, const float* noise, float temperature) {
  const int first = chunk * slice_, last = std::min(linear_.outputs, first + slice_);
  if (first >= linear_.outputs) return;
  // `y` is addressed by the output's number, so the slice's buffer is shifted to the left.
  ops_.linear(linear_, scratch_.rows.rows(), count, first, last, mine.logits.data() - first, slice_, false);
  const int real = std::min(last, linear_.real_outputs) - first;
  for (int r = 0; r < count && real > 0; r++) {
    float* logits = mine.logits.data() + static_cast<size_t>(r) * slice_;
    const size_t at = static_cast<size_t>(r) * linear_.real_outputs + first;
    for (int i = 0; allowed != nullptr && i < real; i++)
      if (!allowed[at + i]) logits[i] = -1e30f;
    Partial& found = scratch_.partials[static_cast<size_t>(r) * kChunks + chunk];
    const float* here = noise != nullptr ? noise + at : nullptr;
    found = ops_.head(logits, real, first, here, temperature);
    if (favoured_ >= first && favoured_ < first + real && logits[favoured_ - first] > -1e30f)
      prefer(found, logits, first, here, temperature);
  }
}

void Head::prefer(Partial& found, const float* logits, int first, const float* noise, float temperature) const {
  const float logit = logits[favoured_ - first];
  const float ranked = noise != nullptr ? (logit + favour_) / temperature + noise[favoured_ - first] : logit + favour_;
  const bool ties = ranked == found.ranked && favoured_ < found.token;
  if (ranked <= found.ranked && !ties && found.token != favoured_) return;
  found.ranked = ranked;
  found.ranked_logit = logit;
  found.token = favoured_;
}

SpanHeads::SpanHeads(Session& session, const diffcode_step& step)
    : model_(*session.model), step_(step), mine_(session.successor),
      head_(model_, session.span_head, model_.w.span_head, model_.w.kept, step.span_favoured, step.span_favour),
      follows_(model_.w.shape.successor != 0 && step.anchors != 0) {}

void SpanHeads::plan() {
  const auto& w = model_.w;
  head_.plan(step_.span_rows);
  if (!follows_) return;
  const size_t width = w.shape.width, widest = std::max<size_t>(2 * width, w.successor_down.outputs);
  make_room(mine_.before, step_.anchors);
  make_room(mine_.both, 2 * width);
  make_room(mine_.inner, w.successor_down.outputs);
  mine_.ones.assign(widest, 1.0f);
  make_room(mine_.states, step_.anchors * width);
  make_room(mine_.found, step_.anchors);
  if (step_.span_noise != nullptr)
    make_room(mine_.noise, static_cast<size_t>(step_.anchors) * w.span_head.real_outputs);
  mine_.bytes.plan(1, widest);
}

void SpanHeads::work(Turn& turn, const float* states, const diffcode_guess* base, diffcode_guess* spans) {
  if (!follows_) return head_.work(turn, states, step_.span_rows, nullptr, step_.span_noise, step_.temperature, spans);
  const bool leads = turn.thread == 0;
  const float* noise = step_.span_noise != nullptr ? mine_.noise.data() : nullptr;
  for (int a = 0; leads && a < step_.anchors; a++) mine_.before[a] = base[step_.anchor_base[a]].token;
  for (int place = 0; place < step_.window; place++) {
    if (leads) follow(place, states);
    head_.work(turn, mine_.states.data(), step_.anchors, nullptr, noise, step_.temperature, mine_.found.data());
    for (int a = 0; leads && a < step_.anchors; a++) {
      spans[a * step_.window + place] = mine_.found[a];
      mine_.before[a] = mine_.found[a].token;
    }
  }
}

// The states of one window place, in the light of the tokens before it.
void SpanHeads::follow(int place, const float* states) {
  const size_t width = model_.w.shape.width, outputs = model_.w.span_head.real_outputs;
  for (int a = 0; a < step_.anchors; a++) {
    const size_t number = static_cast<size_t>(a) * step_.window + place;
    one(a, step_.shown[place] >= 0 ? step_.shown[place] : mine_.before[a], states + number * width);
    if (step_.span_noise != nullptr)
      std::copy_n(step_.span_noise + number * outputs, outputs, mine_.noise.data() + a * outputs);
  }
}

void SpanHeads::one(int anchor, int token, const float* state) {
  const auto& w = model_.w;
  const Ops& ops = *model_.ops;
  const int width = w.shape.width;
  const Linear down = view(w.successor_down), up = view(w.successor_up);
  float* mine = mine_.states.data() + static_cast<size_t>(anchor) * width;
  std::copy_n(state, width, mine);
  for (int d = 0; d < width; d++) mine_.both[width + d] = from_bf16(w.embedding[static_cast<size_t>(token) * width + d]);
  ops.rms_norm(mine, mine_.ones.data(), mine_.both.data(), width, w.shape.norm_eps);
  ops.rms_norm(mine_.both.data() + width, mine_.ones.data(), mine_.both.data() + width, width, w.shape.norm_eps);
  mine_.bytes.put(ops, mine_.both.data(), 0, 1, 2 * width, down.group);
  ops.linear(down, mine_.bytes.rows(), 1, 0, down.outputs, mine_.inner.data(), down.outputs, false);
  ops.silu_product(mine_.inner.data(), mine_.ones.data(), mine_.inner.data(), up.inputs);
  mine_.bytes.put(ops, mine_.inner.data(), 0, 1, up.inputs, up.group);
  ops.linear(up, mine_.bytes.rows(), 1, 0, up.outputs, mine, width, true);
}

}  // namespace diffcode
