#include "rates.h"

#include <algorithm>
#include <chrono>

#include "ops.h"
#include "pool.h"

namespace diffcode {
namespace {

constexpr double kSeconds = 0.2;
constexpr int kRounds = 1 << 18;

// The best rate that `work(thread)`, which says how much it did, reaches in a while.
template <typename Work>
double best_rate(Pool& pool, Work work) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  double best = 0;
  do {
    std::atomic<int64_t> done{0};
    const auto start = Clock::now();
    pool.run([&](int thread) { done += work(thread); });
    best = std::max(best, static_cast<double>(done) / std::chrono::duration<double>(Clock::now() - start).count());
  } while (std::chrono::duration<double>(Clock::now() - began).count() < kSeconds);
  return best;
}

}  // namespace

void measure_rates(int threads, const uint8_t* memory, size_t size, int bits, double* bytes, double* operations) {
  const Ops& ops = *best_ops();
  Pool pool(threads);
  const size_t share = size / threads;
  std::atomic<uint64_t> seen{0};  // so that nothing is left out
  *bytes = best_rate(pool, [&](int thread) {
    seen += ops.walk(memory + thread * share, share);
    return static_cast<int64_t>(share);
  });
  *operations = best_rate(pool, [&](int) { return bits == 16 ? ops.spin_bf16(kRounds) : ops.spin(kRounds); });
}

}  // namespace diffcode
