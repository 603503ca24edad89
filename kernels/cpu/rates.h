// How fast this machine reads memory and multiplies: what the plan's floors are made of.
#pragma once
#include <cstddef>
#include <cstdint>

namespace diffcode {

void measure_rates(int threads, const uint8_t* memory, size_t size, int bits, double* bytes, double* operations);

}  // namespace diffcode
