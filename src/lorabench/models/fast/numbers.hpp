// The two types of activations, and the exponential that every pass shares.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct bfloat16 {
  uint16_t bits;
};

inline float load(float value) { return value; }

inline float load(bfloat16 value) {
  uint32_t wide = uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &wide, sizeof result);
  return result;
}

inline void store(float& place, float value) { place = value; }

inline void store(bfloat16& place, float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  uint32_t rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
  place.bits = uint16_t(value != value ? 0x7fc0u : rounded);
}

// exp by range reduction to [-ln2/2, ln2/2] and a polynomial of degree 6; relative error below 2e-7, 0 below -87.7.
inline float fast_exp(float x) {
  x = x < -88.0f ? -88.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float turns = std::floor(x * 1.44269504f + 0.5f);
  float rest = std::fma(turns, -0.693359375f, x);
  rest = std::fma(turns, 2.12194440e-4f, rest);
  float sum = 1.0f / 720.0f;
  sum = std::fma(sum, rest, 1.0f / 120.0f);
  sum = std::fma(sum, rest, 1.0f / 24.0f);
  sum = std::fma(sum, rest, 1.0f / 6.0f);
  sum = std::fma(sum, rest, 0.5f);
  sum = std::fma(sum, rest, 1.0f);
  sum = std::fma(sum, rest, 1.0f);
  int32_t power = (int32_t(turns) + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, sizeof scale);
  return sum * scale;
}

}  // namespace
