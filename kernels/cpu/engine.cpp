// A whole denoising step: all layers, attention, adapter and heads behind one call. Every thread runs the same program
// and meets the others at barriers.
#include "engine.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <new>

#include "heads.h"
#include "pass.h"
#include "rates.h"

namespace diffcode {
namespace {

constexpr int kNever = 1 << 30;

// One forward as all threads run it.
class Program {
 public:
  // `states`: whether all rows' final states are wanted, and not only those that the heads read.
  Program(Session& session, const diffcode_step& step, bool states)
      : session_(session), step_(step), model_(*session.model), space_(model_.space),
        first_state_(states ? 0 : std::min(step.base_rows > 0 ? step.base_first : step.rows, step.rows - step.span_rows)),
        head_(model_, space_.base_head, model_.w.head, nullptr, step.base_favoured, step.base_favour,
              step.temperature),
        span_heads_(session, step) {}

  // False where the step was cancelled.
  bool run(diffcode_guess* base, diffcode_guess* spans) {
    plan();
    std::atomic<bool> done{false};
    auto work = [&](int thread) {
      Turn turn{session_, thread, 0};
      model_.ops->enter();
      if (this->work(turn, base, spans) && thread == 0) done = true;
      model_.ops->leave();
    };
    model_.pool.run(std::ref(work));
    return done;
  }

 private:
  // How many rows the pass from row `first` on takes.
  int part(int first) const {
    // Span rows see each other both ways, so they are never cut apart from what they see.
    const int left = step_.rows - first, chain = step_.rows - step_.span_rows - first;
    return left <= kMostRows ? left : std::min(kMostRows, chain);
  }

  void plan() {
    const auto& s = model_.w.shape;
    session_.reserve(static_cast<size_t>(step_.context) + step_.rows);
    make_room(space_.final_states, static_cast<size_t>(step_.rows) * s.width);
    int most = 0, passes = 0;
    for (int first = 0; first < step_.rows; first += part(first), passes++) most = std::max(most, part(first));
    space_.plan(model_, most, session_.capacity);
    head_.plan(step_.base_rows);
    span_heads_.plan();
    const size_t phases = passes * (s.layers * Pass::kPhases + 2) + Head::kPhases + SpanHeads::phases(step_);
    if (space_.counters.size() < phases) space_.counters = std::vector<Counter>(phases);
    for (Counter& counter : space_.counters) counter.reset();
    space_.stop_at = kNever;
  }

  bool work(Turn& turn, diffcode_guess* base, diffcode_guess* spans) {
    int number = 0;
    for (int first = 0; first < step_.rows; first += part(first)) {
      const bool states = first + part(first) > first_state_;
      if (!Pass(session_, step_, number++, first, part(first), states).work(turn)) return false;
      turn.meet();
    }
    const size_t width = model_.w.shape.width;
    const float* states = space_.final_states.data();
    if (step_.base_rows > 0)
      head_.work(turn, states + step_.base_first * width, step_.base_rows, step_.allowed, step_.base_noise,
                 base);
    if (step_.span_rows > 0) span_heads_.work(turn, states + (step_.rows - step_.span_rows) * width, base, spans);
    return true;
  }

  Session& session_;
  const diffcode_step& step_;
  Model& model_;
  Workspace& space_;
  const int first_state_;
  Head head_;
  SpanHeads span_heads_;
};

}  // namespace
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

void* diffcode_session_fork(void* session, int32_t length) try {
  const Session& from = *static_cast<Session*>(session);
  auto fork = std::make_unique<Session>(from.model);
  fork->copy(from, static_cast<size_t>(length));
  return fork.release();
} catch (const std::bad_alloc&) {
  return nullptr;
}

int64_t diffcode_session_bytes(void* session) { return static_cast<int64_t>(static_cast<Session*>(session)->bytes()); }

int32_t diffcode_session_reserve(void* session, int32_t length) try {
  static_cast<Session*>(session)->reserve(length);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

int32_t diffcode_step_run(void* handle, const diffcode_step* step, diffcode_guess* base, diffcode_guess* spans,
                          float* hidden) try {
  Session& session = *static_cast<Session*>(handle);
  std::lock_guard<std::mutex> lock(session.model->alone);
  diffcode::Program program(session, *step, hidden != nullptr);
  if (!program.run(base, spans)) return 1;
  if (hidden != nullptr)
    std::copy_n(session.model->space.final_states.data(), static_cast<size_t>(step->rows) * session.model->w.shape.width, hidden);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

void diffcode_rates(int32_t threads, const uint8_t* memory, int64_t size, int32_t bits, double* bytes,
                    double* operations) {
  diffcode::measure_rates(std::max(1, threads), memory, static_cast<size_t>(size), bits, bytes, operations);
}

int32_t diffcode_linear_run(const diffcode_linear* packed, const float* x, int32_t rows, float* y) try {
  const diffcode::Ops* ops = diffcode::best_ops();
  const diffcode::Linear linear = diffcode::view(*packed);
  diffcode::Quantised bytes;
  bytes.plan(rows, linear.row_bytes());
  for (int r = 0; r < rows; r++) bytes.put(*ops, x + static_cast<size_t>(r) * linear.inputs, r, rows, linear);
  ops->enter();
  ops->linear(linear, bytes.rows(ops->layout(linear, rows)), rows, 0, linear.outputs, y, linear.outputs, false);
  ops->leave();
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}
}
