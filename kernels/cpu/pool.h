// A few threads that run one function together, with barriers inside it. They sleep between two calls.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace diffcode {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Runs work(thread) on all threads, the caller being thread 0; returns when all have returned.
  void run(const std::function<void(int)>& work);
  // Waits until all threads are here. Short waits spin (a phase of a step lasts some 20 us), longer ones yield the core,
  // for another program may have it.
  void barrier();

 private:
  void serve(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int)>* work_ = nullptr;
  unsigned round_ = 0;
  int running_ = 0;
  bool closing_ = false;
  std::atomic<int> waiting_{0};
  std::atomic<unsigned> phase_{0};
};

// Shares `total` pieces out among threads that ask: who is held up gets fewer.
class Counter {
 public:
  void reset() { next_.store(0, std::memory_order_relaxed); }
  int take() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int> next_{0};
};

}  // namespace diffcode
