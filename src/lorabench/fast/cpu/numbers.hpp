// What the passes share: the two types of activations, the exponential, and buffers.

#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

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

// The upper half of floats' bits, rounded to nearest even. Bits: an unsigned number or a vector of them.
template <typename Bits>
inline Bits round_to_upper_half(Bits wide) {
  return (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
}

inline void store(bfloat16& place, float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  place.bits = uint16_t(value != value ? 0x7fc0u : round_to_upper_half(wide));
}

// exp within [-ln2/2, ln2/2], by a polynomial of degree 6. Real: float or a vector of them.
template <typename Real>
inline Real exp_near_zero(Real x) {
  Real sum = x * (1.0f / 720.0f) + 1.0f / 120.0f;
  sum = sum * x + 1.0f / 24.0f;
  sum = sum * x + 1.0f / 6.0f;
  sum = sum * x + 0.5f;
  sum = sum * x + 1.0f;
  return sum * x + 1.0f;
}

// What is left of x without `turns` times ln2.
template <typename Real>
inline Real without_turns(Real x, Real turns) {
  Real rest = x - turns * 0.693359375f;
  return rest + turns * 2.12194440e-4f;
}

// exp by range reduction; relative error below 2e-7, 0 below -87.7.
inline float fast_exp(float x) {
  x = x < -88.0f ? -88.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float turns = std::floor(x * 1.44269504f + 0.5f);
  int32_t power = (int32_t(turns) + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, sizeof scale);
  return exp_near_zero(without_turns(x, turns)) * scale;
}

inline int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// Memory at a vector's boundary.
template <typename U>
class Buffer {
 public:
  explicit Buffer(int64_t count, bool zeroed = true) {
    size_t bytes = size_t(round_up(count * int64_t(sizeof(U)), 64));
    start_ = static_cast<U*>(std::aligned_alloc(64, bytes));
    if (!start_) throw std::bad_alloc();
    if (zeroed) std::memset(static_cast<void*>(start_), 0, bytes);
  }
  ~Buffer() { std::free(start_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator U*() const { return start_; }

 private:
  U* start_;
};

// Runs `work` in every thread. Memory that one of them cannot have is missed here, after all have ended: an exception
// that leaves a parallel region ends the process.
template <typename Work>
void in_every_thread(const Work& work) {
  bool failed = false;
#pragma omp parallel reduction(|| : failed)
  {
    try {
      work();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  }
  if (failed) throw std::bad_alloc();
}

// The numbers below `count`, each for one thread. A thread that cannot do its share leaves it to the others, as it
// could not in a loop that OpenMP shares out.
class Shared {
 public:
  explicit Shared(int64_t count) : count_(count) {}
  bool take(int64_t& number) { return (number = next_.fetch_add(1, std::memory_order_relaxed)) < count_; }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
};

// What Python is told: 0 where the work is done, 1 where memory ran out.
template <typename Work>
int attempt(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace
