// One pass of up to kMostRows rows through all layers. Every thread has one of its own and runs the same program.
#pragma once
#include "session.h"

namespace diffcode {

class Pass {
 public:
  static constexpr int kPhases = 12;  // of a layer, at most

  // `number`: how many passes of this step came before. `states`: whether anybody asks for a final state of these rows; of
  // the others the last layer's keys and values are wanted, and nothing behind them.
  Pass(Session& session, const diffcode_step& step, int number, int first, int count, bool states);
  // What one thread does of it; false where the step was cancelled. The last phase ends without a meeting.
  bool work(Turn& turn);

 private:
  struct LowRank {  // what the last `rows` rows add to a map
    Linear low, high;
    int rows;

    int parts() const { return low.real_outputs / high.inputs; }
  };
  struct Adapted {  // a linear map and the low-rank maps beside it: of the adapter, and of `undo`
    Linear base;
    LowRank beside[kBeside];
    int second, third;  // outputs at which further parts begin

    int part(const LowRank& low_rank, int output) const {
      return low_rank.parts() == 1 ? 0 : (output >= second) + (output >= third);
    }
  };

  Adapted adapted(const diffcode_map& map, int second = 0, int third = 0) const;
  void begin(int r);
  void layer(Turn& turn, int l);
  Bytes& normed(Turn& turn, const float* weight, const diffcode_linear& reader);
  Bytes& attention(Turn& turn, int l);
  void place(Turn& turn, int l);
  void place(int l, int from, int to);
  void gated(Turn& turn, const diffcode_layer& w, Bytes& input);
  void gated_piece(Scratch& mine, const Adapted& map, Rows input, int first, const Linear& reader);
  void map(Turn& turn, const Adapted& map, Bytes& input, std::vector<float>& y, bool add, int from = 0);
  void low_ranks(Scratch& mine, const Adapted& map, Bytes& input);
  void part(Scratch& mine, const Adapted& map, Rows input, int first, int last, float* y, size_t stride, bool add);
  // Those that were put for `reader`.
  Rows all_rows(Bytes& bytes, const Linear& reader);
  Rows span_rows(Bytes& bytes, const Linear& reader);
  void put(Bytes& bytes, const float* from, int r, const Linear& reader, int column, int columns);
  template <typename Fill>
  Bytes& shared_or_own(Turn& turn, Fill fill);
  float* row(std::vector<float>& of, int r, size_t width) { return of.data() + static_cast<size_t>(r) * width; }

  Session& session_;
  Model& model_;
  Workspace& space_;
  const Ops& ops_;
  const diffcode_shape& shape_;
  const diffcode_step& step_;
  const int number_, first_, count_, spans_;
  const bool states_;
};

}  // namespace diffcode
