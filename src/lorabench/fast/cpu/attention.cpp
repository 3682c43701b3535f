// Causal attention within segments of a flat batch, forward and backward, for one query head of one segment at a time.
//
// Products run on units of 32 bits, one float or two bfloat16 that the processor multiplies and adds in one go. Their
// right factor is laid out in vectors of units, their left factor is read unit by unit and spread over a vector.
// Scores exist for one block of queries at a time, in float. They may be capped, and hidden where they lie before a
// window; what is hidden by a window is computed all the same.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "numbers.hpp"

namespace {

constexpr int64_t kQueries = 32;  // in a block: few enough to skip most of the upper triangle
constexpr int64_t kRows = 4;      // of a product's tile
#ifdef __AVX512F__
constexpr int64_t kLanes = 16;   // of a vector
constexpr int64_t kVectors = 4;  // of a product's tile: rows times vectors fit the registers
#else
constexpr int64_t kLanes = 8;
constexpr int64_t kVectors = 2;
#endif

typedef uint32_t Unit __attribute__((may_alias));
typedef float Floats __attribute__((vector_size(kLanes * 4), may_alias));
typedef uint32_t Units __attribute__((vector_size(kLanes * 4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2), may_alias));

template <typename T>
constexpr int64_t kPerUnit = int64_t(sizeof(uint32_t) / sizeof(T));

// sum + left * right, lane by lane; with bfloat16 over both halves of each unit.
inline Floats multiply_add(float, Floats sum, uint32_t left, const Units& right) {
  float spread;
  std::memcpy(&spread, &left, sizeof spread);
  return sum + spread * Floats(right);
}

inline Floats multiply_add(bfloat16, Floats sum, uint32_t left, const Units& right) {
#ifdef __AVX512BF16__
  return Floats(_mm512_dpbf16_ps(__m512(sum), __m512bh(_mm512_set1_epi32(int32_t(left))), __m512bh(right)));
#else
  Units spread = left - Units{};
  sum += Floats(spread << 16) * Floats(right << 16);
  return sum + Floats(spread & 0xffff0000u) * Floats(right & 0xffff0000u);
#endif
}

inline Floats at(const float* from) { return *reinterpret_cast<const Floats*>(from); }

inline void store_lanes(float* to, Floats values) { *reinterpret_cast<Floats*>(to) = values; }

inline void store_lanes(bfloat16* to, Floats values) {
#ifdef __AVX512BF16__
  *reinterpret_cast<Halves*>(to) = Halves(_mm512_cvtneps_pbh(__m512(values)));
#else
  Units bits = values == values ? round_to_upper_half(Units(values)) : 0x7fc0u + Units{};
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(bits, Halves);
#endif
}

inline Floats larger(Floats left, Floats right) { return left > right ? left : right; }

inline float sum_of(Floats lanes) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

inline float largest_of(Floats lanes) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

// `fast_exp` of a vector that holds nothing above 88; 1e-38 below -87.3.
inline Floats exp_of(Floats x) {
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the rounded summand
  x = x < -87.3f ? -87.3f + Floats{} : x;
  Floats shifted = x * 1.44269504f + to_integer, turns = shifted - to_integer;
  return Floats(Units(exp_near_zero(without_turns(x, turns))) + (Units(shifted) << 23));
}

inline Floats size_of(Floats x) { return Floats(Units(x) & 0x7fffffffu); }

// Near zero by its series, where the difference of the other form would lose digits.
inline Floats tanh_of(Floats x) {
  Floats size = size_of(x), square = x * x;
  Floats series = ((62.0f / 2835.0f * square - 17.0f / 315.0f) * square + 2.0f / 15.0f) * square - 1.0f / 3.0f;
  Floats far = 1.0f - 2.0f / (exp_of(2.0f * (size > 20.0f ? 20.0f + Floats{} : size)) + 1.0f);
  far = x < 0.0f ? -far : far;
  return size < 0.25f ? x + x * square * series : far;
}

// A product's factors: units of the left one by row, vectors of the right one by unit.
struct Left {
  const Unit* units;
  int64_t row_stride, unit_stride;
};

struct Right {
  const Units* vectors;
  int64_t unit_stride, vector_stride;
};

template <typename T, int64_t vectors>
void multiply_tile(const Left& left, const Right& right, int64_t units, float* out, int64_t out_stride, bool add) {
  Floats sums[kRows][vectors];
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t vector = 0; vector < vectors; ++vector)
      sums[row][vector] = add ? *reinterpret_cast<Floats*>(out + row * out_stride + vector * kLanes) : Floats{};
  for (int64_t unit = 0; unit < units; ++unit)
    for (int64_t vector = 0; vector < vectors; ++vector) {
      const Units& spread_over = right.vectors[unit * right.unit_stride + vector * right.vector_stride];
      for (int64_t row = 0; row < kRows; ++row)
        sums[row][vector] = multiply_add(
            T{}, sums[row][vector], left.units[row * left.row_stride + unit * left.unit_stride], spread_over);
    }
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t vector = 0; vector < vectors; ++vector)
      *reinterpret_cast<Floats*>(out + row * out_stride + vector * kLanes) = sums[row][vector];
}

// out [rows, vectors] = left * right, or out + left * right; rows is a multiple of kRows.
template <typename T>
void multiply(int64_t rows, int64_t vectors, int64_t units, Left left, Right right, float* out, int64_t out_stride,
              bool add) {
  for (int64_t vector = 0; vector < vectors; vector += kVectors) {
    int64_t width = std::min(kVectors, vectors - vector);
    Right part{right.vectors + vector * right.vector_stride, right.unit_stride, right.vector_stride};
    for (int64_t row = 0; row < rows; row += kRows) {
      Left band{left.units + row * left.row_stride, left.row_stride, left.unit_stride};
      float* tile = out + row * out_stride + vector * kLanes;
      if (width == 1) multiply_tile<T, 1>(band, part, units, tile, out_stride, add);
      if (width == 2) multiply_tile<T, 2>(band, part, units, tile, out_stride, add);
#ifdef __AVX512F__
      if (width == 3) multiply_tile<T, 3>(band, part, units, tile, out_stride, add);
      if (width == 4) multiply_tile<T, 4>(band, part, units, tile, out_stride, add);
#endif
    }
  }
}

}  // namespace

// One layer's attention, as `native.py` fills it in. Strides count elements.
struct Attention {
  int64_t segments, tokens, query_heads, key_heads, width, half;
  int64_t query_token, query_head;  // strides of the queries
  int64_t key_token, key_head;      // strides of keys and values
  const int32_t* starts;            // [segments + 1]
  const float *cosine, *sine;       // [tokens, half]
  void *query, *key, *value;        // become their gradients in the backward pass
  void* output;                     // [tokens, query heads, width]; its gradient in the backward pass
  float* log_sums;                  // [query heads, tokens]
  int64_t window;                   // tokens that a query sees at most, itself among them; 0 for all
  float factor;
  float cap;  // scores become cap * tanh(score / cap); 0 for none
};

namespace {

// Work of one thread: a query head of a segment.
struct Task {
  int64_t head, key_head, start, length;
};

template <typename T>
class Pass {
 public:
  explicit Pass(const Attention& attention)
      : call_(attention),
        width_(round_up(attention.width, kLanes)),
        units_(width_ / kPerUnit<T>),
        factor_(attention.cap > 0.0f ? 1.0f : attention.factor) {
    for (int64_t i = 0; i < call_.segments; ++i) {
      places_.push_back(padded_tokens_);
      int64_t length = round_up(call_.starts[i + 1] - call_.starts[i], kQueries);
      longest_ = std::max(longest_, length);
      padded_tokens_ += length;
    }
  }

  void forward() const {
    Shared tasks(num_tasks());
    in_every_thread([&] {
      Buffer<T> rows(longest_ * width_), keys(longest_ * width_), values(longest_ * width_);
      Buffer<T> queries(kQueries * width_), weights(kQueries * longest_);
      Buffer<float> scores(kQueries * longest_), out(kQueries * width_);
      float shares[kQueries];
      for (int64_t number; tasks.take(number);) {
        Task task = task_of(number);
        read_keys(call_.key, task, call_.half, rows);
        put_in_lanes(rows, task.length, keys);
        read_keys(call_.value, task, 0, rows);
        put_in_units(rows, task.length, width_, width_, values);
        for (int64_t first = 0; first < task.length; first += kQueries) {
          int64_t count = std::min(kQueries, task.length - first), length = first + count;
          int64_t seen = round_up(length, kLanes), padded = round_up(count, kRows);
          read_queries(task, first, count, queries);
          multiply<T>(padded, seen / kLanes, units_, by_row(queries, width_), in_lanes(keys), scores, longest_, false);
          for (int64_t i = 0; i < count; ++i) {
            float* line = scores + i * longest_;
            T* weight = weights + i * longest_;
            if (call_.cap > 0.0f) cap(line, first + i + 1);
            int64_t visible = hide(line, first + i + 1);
            Floats large = at(line), sums{};
            for (int64_t j = kLanes; j < visible; j += kLanes) large = larger(large, at(line + j));
            float largest = largest_of(large) * factor_;
            for (int64_t j = 0; j < visible; j += kLanes) {
              Floats power = exp_of(at(line + j) * factor_ - largest);
              sums += power;
              store_lanes(weight + j, power);
            }
            for (int64_t j = visible; j < seen; j += kLanes) store_lanes(weight + j, Floats{});
            float sum = sum_of(sums);
            log_sum(task, first + i) = largest + std::log(sum);
            shares[i] = 1.0f / sum;
          }
          multiply<T>(padded, width_ / kLanes, units_of(length), by_row(weights, longest_), in_units(values, width_),
                      out, width_, false);
          for (int64_t i = 0; i < count; ++i) {
            T* place = static_cast<T*>(call_.output) + output_place(task, first + i);
#pragma omp simd
            for (int64_t j = 0; j < call_.width; ++j) store(place[j], out[i * width_ + j] * shares[i]);
          }
        }
      }
    });
  }

  void backward() const {
    // Of each query head; those of a key's or value's several query heads are added up at the end.
    Buffer<float> d_keys(call_.query_heads * padded_tokens_ * width_, false);
    Buffer<float> d_values(call_.query_heads * padded_tokens_ * width_, false);
    int64_t num_sums = call_.segments * call_.key_heads;
    Shared tasks(num_tasks()), key_sums(num_sums), value_sums(num_sums);
    in_every_thread([&] {
      Buffer<T> rows(longest_ * width_), keys(longest_ * width_), values(longest_ * width_), key_units(longest_ * width_);
      Buffer<T> queries(kQueries * width_), query_units(kQueries * width_);
      Buffer<T> gradients(kQueries * width_), gradient_units(kQueries * width_);
      Buffer<T> weights(kQueries * longest_), weight_units(kQueries * longest_);
      Buffer<T> slopes(kQueries * longest_), slope_units(kQueries * longest_);
      Buffer<float> scores(kQueries * longest_), d_weights(kQueries * longest_), out(kQueries * width_), bends(longest_);
      for (int64_t number; tasks.take(number);) {
        Task task = task_of(number);
        read_keys(call_.value, task, 0, rows);
        put_in_lanes(rows, task.length, values);
        read_keys(call_.key, task, call_.half, rows);
        put_in_lanes(rows, task.length, keys);
        put_in_units(rows, task.length, width_, width_, key_units);
        int64_t part = (task.head * padded_tokens_ + places_[size_t(number / call_.query_heads)]) * width_;
        float *d_key = d_keys + part, *d_value = d_values + part;
        size_t part_bytes = size_t(round_up(task.length, kQueries) * width_) * sizeof(float);
        std::memset(d_key, 0, part_bytes);
        std::memset(d_value, 0, part_bytes);
        for (int64_t first = 0; first < task.length; first += kQueries) {
          int64_t count = std::min(kQueries, task.length - first), length = first + count;
          int64_t seen = round_up(length, kLanes), padded = round_up(count, kRows);
          read_queries(task, first, count, queries);
          put_in_units(queries, count, width_, width_, query_units);
          for (int64_t i = 0; i < count; ++i)
            turn(static_cast<const T*>(call_.output) + output_place(task, first + i), 0, 0, 1.0f,
                 gradients + i * width_);
          put_in_units(gradients, count, width_, width_, gradient_units);
          multiply<T>(padded, seen / kLanes, units_, by_row(queries, width_), in_lanes(keys), scores, longest_, false);
          multiply<T>(padded, seen / kLanes, units_, by_row(gradients, width_), in_lanes(values), d_weights, longest_,
                      false);
          for (int64_t i = 0; i < count; ++i) {
            float *line = scores + i * longest_, *d_weight = d_weights + i * longest_;
            T *weight = weights + i * longest_, *slope = slopes + i * longest_;
            if (call_.cap > 0.0f) cap(line, first + i + 1, bends);
            int64_t visible = hide(line, first + i + 1);
            float total = log_sum(task, first + i);
            Floats sums{};
            for (int64_t j = 0; j < visible; j += kLanes) {
              Floats power = exp_of(at(line + j) * factor_ - total);
              sums += power * at(d_weight + j);
              store_lanes(line + j, power);
              store_lanes(weight + j, power);
            }
            float along = sum_of(sums);
            if (call_.cap > 0.0f)
              for (int64_t j = 0; j < visible; j += kLanes) store_lanes(line + j, at(line + j) * at(bends + j));
            for (int64_t j = 0; j < visible; j += kLanes)
              store_lanes(slope + j, at(line + j) * (at(d_weight + j) - along) * call_.factor);
            for (int64_t j = visible; j < seen; j += kLanes) {
              store_lanes(weight + j, Floats{});
              store_lanes(slope + j, Floats{});
            }
          }
          multiply<T>(padded, width_ / kLanes, units_of(length), by_row(slopes, longest_), in_units(key_units, width_),
                      out, width_, false);
          for (int64_t i = 0; i < count; ++i)
            turn(out + i * width_, task.start + first + i, call_.half, -1.0f,
                 static_cast<T*>(call_.query) + query_place(task, first + i));
          put_in_units(weights, count, longest_, seen, weight_units);
          put_in_units(slopes, count, longest_, seen, slope_units);
          multiply<T>(round_up(length, kRows), width_ / kLanes, units_of(count), by_column(slope_units, longest_),
                      in_units(query_units, width_), d_key, width_, true);
          multiply<T>(round_up(length, kRows), width_ / kLanes, units_of(count), by_column(weight_units, longest_),
                      in_units(gradient_units, width_), d_value, width_, true);
        }
      }
    });
    in_every_thread([&] {
      add_up(key_sums, d_keys, call_.half, call_.key);
      add_up(value_sums, d_values, 0, call_.value);
    });
  }

 private:
  int64_t num_tasks() const { return call_.segments * call_.query_heads; }

  Task task_of(int64_t number) const {
    int64_t head = number % call_.query_heads, start = call_.starts[number / call_.query_heads];
    return {head, head * call_.key_heads / call_.query_heads, start,
            call_.starts[number / call_.query_heads + 1] - start};
  }

  static int64_t units_of(int64_t count) { return (count + kPerUnit<T> - 1) / kPerUnit<T>; }

  // Where a token of the task's segment lies in queries, in keys and values, and in the output.
  int64_t query_place(const Task& task, int64_t i) const {
    return (task.start + i) * call_.query_token + task.head * call_.query_head;
  }
  int64_t key_place(const Task& task, int64_t i) const {
    return (task.start + i) * call_.key_token + task.key_head * call_.key_head;
  }
  int64_t output_place(const Task& task, int64_t i) const {
    return ((task.start + i) * call_.query_heads + task.head) * call_.width;
  }
  float& log_sum(const Task& task, int64_t i) const { return call_.log_sums[task.head * call_.tokens + task.start + i]; }

  // One head of a token, its first 2 * half components turned by sign times the token's angles.
  template <typename From, typename To>
  void turn(const From* from, int64_t token, int64_t half, float sign, To* to) const {
    const float *c = call_.cosine + token * half, *s = call_.sine + token * half;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      float first = load(from[i]), second = load(from[i + half]);
      store(to[i], first * c[i] - sign * second * s[i]);
      store(to[i + half], second * c[i] + sign * first * s[i]);
    }
#pragma omp simd
    for (int64_t i = 2 * half; i < call_.width; ++i) store(to[i], load(from[i]));
  }

  void read_keys(const void* from, const Task& task, int64_t half, T* rows) const {
    for (int64_t i = 0; i < task.length; ++i)
      turn(static_cast<const T*>(from) + key_place(task, i), task.start + i, half, 1.0f, rows + i * width_);
  }

  void read_queries(const Task& task, int64_t first, int64_t count, T* rows) const {
    for (int64_t i = 0; i < count; ++i)
      turn(static_cast<const T*>(call_.query) + query_place(task, first + i), task.start + first + i, call_.half, 1.0f,
           rows + i * width_);
  }

  // The scores of `visible` keys padded to whole vectors, so that no loop has a slow end; what is added weighs 0.
  int64_t hide(float* scores, int64_t visible) const {
    int64_t padded = round_up(visible, kLanes);
    if (call_.window && visible > call_.window) std::fill(scores, scores + visible - call_.window, -INFINITY);
    std::fill(scores + visible, scores + padded, -INFINITY);
    return padded;
  }

  // Scores become the capped ones, and `bends`, where it is given, by how much these change with them.
  void cap(float* scores, int64_t visible, float* bends = nullptr) const {
    for (int64_t j = 0; j < visible; j += kLanes) {
      Floats share = tanh_of(at(scores + j) * (call_.factor / call_.cap));
      store_lanes(scores + j, share * call_.cap);
      if (bends) store_lanes(bends + j, 1.0f - share * share);
    }
  }

  // Rows as lanes: row r's unit u is lane r % lanes of vector r / lanes * units + u.
  void put_in_lanes(const T* rows, int64_t count, T* lanes) const {
    for (int64_t row = 0; row < count; ++row) {
      const Unit* from = reinterpret_cast<const Unit*>(rows + row * width_);
      Unit* to = reinterpret_cast<Unit*>(lanes) + row / kLanes * units_ * kLanes + row % kLanes;
      for (int64_t unit = 0; unit < units_; ++unit) to[unit * kLanes] = from[unit];
    }
  }

  // Rows as units: unit (u, column) holds rows u * per unit and following; rows that are not there are zero.
  static void put_in_units(const T* rows, int64_t count, int64_t row_width, int64_t width, T* units) {
    for (int64_t row = 0; row < count; row += kPerUnit<T>) {
      const T* from = rows + row * row_width;
      Unit* to = reinterpret_cast<Unit*>(units) + row / kPerUnit<T> * row_width;
      if constexpr (kPerUnit<T> == 1) {
        std::memcpy(to, from, size_t(width) * sizeof(Unit));
      } else if (row + 1 < count) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] = from[i].bits | uint32_t(from[row_width + i].bits) << 16;
      } else {
        for (int64_t i = 0; i < width; ++i) to[i] = from[i].bits;
      }
    }
  }

  Left by_row(const T* start, int64_t row_width) const {
    return {reinterpret_cast<const Unit*>(start), row_width / kPerUnit<T>, 1};
  }
  Left by_column(const T* start, int64_t row_width) const { return {reinterpret_cast<const Unit*>(start), 1, row_width}; }
  Right in_lanes(const T* start) const { return {reinterpret_cast<const Units*>(start), 1, units_}; }
  Right in_units(const T* start, int64_t width) const {
    return {reinterpret_cast<const Units*>(start), width / kLanes, 1};
  }

  // The gradient of keys or values from those of their query heads, turned back. Called by every thread.
  void add_up(Shared& numbers, const float* parts, int64_t half, void* gradient) const {
    int64_t group = call_.query_heads / call_.key_heads;
    Buffer<float> sums(width_);
    for (int64_t number; numbers.take(number);) {
      int64_t segment = number / call_.key_heads, key_head = number % call_.key_heads;
      Task task = task_of(segment * call_.query_heads + key_head * group);
      for (int64_t i = 0; i < task.length; ++i) {
        const float* part = parts + (task.head * padded_tokens_ + places_[size_t(segment)] + i) * width_;
#pragma omp simd
        for (int64_t j = 0; j < call_.width; ++j) sums[j] = part[j];
        for (int64_t other = 1; other < group; ++other)
#pragma omp simd
          for (int64_t j = 0; j < call_.width; ++j) sums[j] += part[other * padded_tokens_ * width_ + j];
        turn<float>(sums, task.start + i, half, -1.0f, static_cast<T*>(gradient) + key_place(task, i));
      }
    }
  }

  const Attention& call_;
  int64_t width_, units_;  // of a head, padded to whole vectors
  float factor_;           // of the scores once they may be capped
  int64_t longest_ = 0, padded_tokens_ = 0;
  std::vector<int64_t> places_;  // of the segments among tokens padded to whole blocks
};

}  // namespace

extern "C" int attention_fp32(const Attention* call) { return attempt([=] { Pass<float>(*call).forward(); }); }
extern "C" int attention_bf16(const Attention* call) { return attempt([=] { Pass<bfloat16>(*call).forward(); }); }
extern "C" int attention_backward_fp32(const Attention* call) { return attempt([=] { Pass<float>(*call).backward(); }); }
extern "C" int attention_backward_bf16(const Attention* call) {
  return attempt([=] { Pass<bfloat16>(*call).backward(); });
}
