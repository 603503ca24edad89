// The C interface. kernels/cpu/native.py mirrors every struct; kVersion changes with any of them.
#pragma once
#include <cstdint>

#include "ops.h"

extern "C" {

constexpr int32_t kVersion = 9;

struct diffcode_shape {
  int32_t layers, width, heads, kv_heads, head_width, ffn, vocabulary, kept;  // kept: rows of the span rows' head
  int32_t successor;  // width of the successor map, 0: there is none
  float norm_eps;
};

struct diffcode_linear {  // diffcode::Linear
  const uint8_t* weights;
  const uint16_t* scales;
  const float* bias;
  int32_t outputs, inputs, group, real_outputs, bits;
};

// A map and the low-rank maps beside it; outputs 0 where it has none. Where `high` has less inputs than `low` outputs,
// its parts (queries, keys and values; gate and up) read one stretch of them each.
struct diffcode_map {
  diffcode_linear base;
  diffcode_linear low, high;            // the adapter's, of span rows
  diffcode_linear undo_low, undo_high;  // of all rows of a step with `undo`: the negative of what was merged into `base`
};

struct diffcode_layer {
  const float *input_norm, *post_norm;
  diffcode_map qkv, out, gate_up, down;
};

struct diffcode_weights {
  diffcode_shape shape;
  const diffcode_layer* layers;
  const float* norm;
  const uint16_t* embedding;  // bf16 [V, D]
  const float* mask;          // [D], null without an adapter
  const float* frequencies;   // of the rotary embedding, [K / 2]
  diffcode_linear head, span_head;
  const int32_t* kept;  // token of each row of span_head, or null
  // The successor map: its first half, of states and of tokens; its second half, and the span head of what that yields.
  diffcode_linear successor_state, successor_token, successor_up, successor_head;
};

struct diffcode_guess {
  int32_t token;
  float probability, margin, entropy;
};

struct diffcode_step {
  int32_t context;  // places of the cache that are filled
  int32_t rows, span_rows;
  int32_t undo;              // whether the maps' `undo` counts
  const int32_t* tokens;     // [rows], -1: masked
  const int32_t* positions;  // [rows]
  const diffcode::Sight* sights;  // [rows]
  int32_t base_first, base_rows;  // rows whose next token is guessed over the whole vocabulary
  int32_t anchors, window;        // span rows are anchors x window
  const int32_t* anchor_base;     // [anchors]: number of the base row that says what stands at window place 0
  const int32_t* shown;           // [window]: token at each window place, -1: masked
  float temperature;
  const uint8_t* allowed;   // [base_rows, vocabulary]: tokens that may stand there, or null
  const float* base_noise;  // [base_rows, vocabulary] or null
  const float* span_noise;  // [span_rows, kept] or null
  int32_t base_favoured;  // an output of the head (or -1) whose logit counts as `base_favour` larger where tokens are
  float base_favour;      // chosen; probabilities do not change
  int32_t span_favoured;
  float span_favour;
  const volatile int32_t* cancelled;  // looked at between layers
};

int32_t diffcode_version();
const char* diffcode_isa();  // null: DIFFCODE_ISA names one that does not run here
void* diffcode_model_new(const diffcode_weights* weights, int32_t threads);
void diffcode_model_free(void* model);
void* diffcode_session_new(void* model);
void diffcode_session_free(void* session);
// A session of its own with the first `length` places of another's context, or null if memory is short.
void* diffcode_session_fork(void* session, int32_t length);
// Makes room for `length` places. 0, or -1 where memory is short.
int32_t diffcode_session_reserve(void* session, int32_t length);
int64_t diffcode_session_bytes(void* session);
// One forward. hidden [rows, D] (or null) gets the final states. 0; 1: cancelled; -1: memory is short.
int32_t diffcode_step_run(void* session, const diffcode_step* step, diffcode_guess* base, diffcode_guess* spans,
                          float* hidden);
// What this machine can do with `threads` threads: bytes a second out of `memory`, which should be too large for the
// caches, and multiplications and additions a second, of bf16 (`bits` 16) or of bytes. Takes a fifth of a second each.
void diffcode_rates(int32_t threads, const uint8_t* memory, int64_t size, int32_t bits, double* bytes,
                    double* operations);
// One linear map of fp32 rows [rows, D] to y [rows, padded outputs], for tests and measurements.
int32_t diffcode_linear_run(const diffcode_linear* linear, const float* x, int32_t rows, float* y);
}
