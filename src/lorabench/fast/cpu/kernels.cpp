// The passes over activations that surround the matrix products: each reads and writes its tensors once.
// Rows are contiguous; tokens are spread over the threads of the OpenMP runtime that torch already runs.
// Activations are float or bfloat16, arithmetic and the residual stream are always float.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "numbers.hpp"

namespace {

// Error function, Abramowitz and Stegun 7.1.26: absolute error below 2e-7 in float.
inline float fast_erf(float x) {
  float size = std::fabs(x);
  float t = 1.0f / (1.0f + 0.3275911f * size);
  float sum = 1.061405429f;
  sum = std::fma(sum, t, -1.453152027f);
  sum = std::fma(sum, t, 1.421413741f);
  sum = std::fma(sum, t, -0.284496736f);
  sum = std::fma(sum, t, 0.254829592f);
  return std::copysign(1.0f - sum * t * fast_exp(-size * size), x);
}

enum Activation { kSilu = 0, kGeluTanh = 1, kGeluErf = 2 };

template <int kind>
inline void activate(float x, float& value, float& slope) {
  if (kind == kSilu) {
    float sigmoid = 1.0f / (1.0f + fast_exp(-x));
    value = x * sigmoid;
    slope = sigmoid * (1.0f + x * (1.0f - sigmoid));
  } else if (kind == kGeluTanh) {
    const float c = 0.7978845608f, a = 0.044715f;
    float inner = c * (x + a * x * x * x);
    float tanh = 1.0f - 2.0f / (fast_exp(2.0f * inner) + 1.0f);
    value = 0.5f * x * (1.0f + tanh);
    slope = 0.5f * (1.0f + tanh) + 0.5f * x * (1.0f - tanh * tanh) * c * (1.0f + 3.0f * a * x * x);
  } else {
    float cumulative = 0.5f * (1.0f + fast_erf(x * 0.7071067812f));
    value = x * cumulative;
    slope = cumulative + x * 0.3989422804f * fast_exp(-0.5f * x * x);
  }
}

template <typename T>
inline void normalise(int64_t width, const float* in, float centre, float factor, const float* weight,
                      const float* bias, T* out) {
  if (bias) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) store(out[i], (in[i] - centre) * factor * weight[i] + bias[i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) store(out[i], (in[i] - centre) * factor * weight[i]);
  }
}

template <typename T>
void add_norm(int64_t rows, int64_t width, const float* x, const T* delta, const float* weight, const float* bias,
              float epsilon, float* total, T* normed, float* mean, float* scale) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * width;
    T* out = normed + row * width;
    if (delta) {
      const T* more = delta + row * width;
      float* sum = total + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sum[i] = in[i] + load(more[i]);
      in = sum;
    }
    float centre = 0.0f;
    if (mean) {
#pragma omp simd reduction(+ : centre)
      for (int64_t i = 0; i < width; ++i) centre += in[i];
      centre /= float(width);
      mean[row] = centre;
    }
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; ++i) squares += (in[i] - centre) * (in[i] - centre);
    float factor = 1.0f / std::sqrt(squares / float(width) + epsilon);
    scale[row] = factor;
    normalise(width, in, centre, factor, weight, bias, out);
  }
}

template <typename T>
void add_norm_backward(int64_t rows, int64_t width, const float* d_total, const T* d_normed, const float* x,
                       const float* mean, const float* scale, const float* weight, const float* bias, float* d_x,
                       T* d_delta, T* normed) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * width;
    const T* gradient = d_normed + row * width;
    const float* passed = d_total ? d_total + row * width : nullptr;
    float* out = d_x + row * width;
    float centre = mean ? mean[row] : 0.0f, factor = scale[row], along = 0.0f, sum = 0.0f;
#pragma omp simd reduction(+ : along, sum)
    for (int64_t i = 0; i < width; ++i) {
      float g = load(gradient[i]) * weight[i];
      sum += g;
      along += g * (in[i] - centre) * factor;
    }
    along /= float(width);
    sum = mean ? sum / float(width) : 0.0f;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      float g = load(gradient[i]) * weight[i];
      out[i] = factor * (g - sum - (in[i] - centre) * factor * along);
    }
    if (passed) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) out[i] += passed[i];
    }
    if (d_delta) {
      T* narrow = d_delta + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) store(narrow[i], out[i]);
    }
    normalise(width, in, centre, factor, weight, bias, normed + row * width);
  }
}

// `gated` is known when this is compiled: a loop that asks for it at each element is not turned into vectors.
template <typename T, int kind, bool gated>
void activation_of(int64_t count, const T* gate, const T* up, T* out) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    float value, slope;
    activate<kind>(load(gate[i]), value, slope);
    store(out[i], gated ? value * load(up[i]) : value);
  }
}

// In place: gate and up become their gradients, the output's gradient becomes the output once more.
template <typename T, int kind, bool gated>
void activation_backward_of(int64_t count, T* gate, T* up, T* d_out) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    float value, slope, gradient = load(d_out[i]);
    activate<kind>(load(gate[i]), value, slope);
    float factor = gated ? load(up[i]) : 1.0f;
    store(gate[i], gradient * slope * factor);
    if (gated) store(up[i], gradient * value);
    store(d_out[i], value * factor);
  }
}

// Nats of each target; logits become their gradient (softmax minus one-hot) where that is wanted.
template <typename T>
void cross_entropy(int64_t rows, int64_t width, int64_t stride, T* logits, const int64_t* targets, bool gradient,
                   float* losses) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    T* line = logits + row * stride;
    int64_t target = targets[row];
    float wanted = load(line[target]), largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < width; ++i) largest = load(line[i]) > largest ? load(line[i]) : largest;
    if (gradient) {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) {
        float power = fast_exp(load(line[i]) - largest);
        sum += power;
        store(line[i], power);
      }
      float share = 1.0f / sum;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) store(line[i], load(line[i]) * share);
      store(line[target], std::expm1(wanted - largest - std::log(sum)));
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) sum += fast_exp(load(line[i]) - largest);
    }
    losses[row] = largest - wanted + std::log(sum);
  }
}

template <typename T, int kind>
void activation_as_gated(int64_t count, const T* gate, const T* up, T* out) {
  if (up)
    activation_of<T, kind, true>(count, gate, up, out);
  else
    activation_of<T, kind, false>(count, gate, up, out);
}

template <typename T, int kind>
void activation_backward_as_gated(int64_t count, T* gate, T* up, T* d_out) {
  if (up)
    activation_backward_of<T, kind, true>(count, gate, up, d_out);
  else
    activation_backward_of<T, kind, false>(count, gate, up, d_out);
}

template <typename T>
void activation(int kind, int64_t count, const T* gate, const T* up, T* out) {
  if (kind == kSilu) activation_as_gated<T, kSilu>(count, gate, up, out);
  if (kind == kGeluTanh) activation_as_gated<T, kGeluTanh>(count, gate, up, out);
  if (kind == kGeluErf) activation_as_gated<T, kGeluErf>(count, gate, up, out);
}

template <typename T>
void activation_backward(int kind, int64_t count, T* gate, T* up, T* d_out) {
  if (kind == kSilu) activation_backward_as_gated<T, kSilu>(count, gate, up, d_out);
  if (kind == kGeluTanh) activation_backward_as_gated<T, kGeluTanh>(count, gate, up, d_out);
  if (kind == kGeluErf) activation_backward_as_gated<T, kGeluErf>(count, gate, up, d_out);
}

}  // namespace

#define EXPORT(T, SUFFIX)                                                                                             \
  extern "C" void add_norm_##SUFFIX(int64_t rows, int64_t width, const float* x, const T* delta, const float* weight, \
                                    const float* bias, float epsilon, float* total, T* normed, float* mean,           \
                                    float* scale) {                                                                   \
    add_norm<T>(rows, width, x, delta, weight, bias, epsilon, total, normed, mean, scale);                            \
  }                                                                                                                   \
  extern "C" void add_norm_backward_##SUFFIX(int64_t rows, int64_t width, const float* d_total, const T* d_normed,    \
                                             const float* x, const float* mean, const float* scale,                   \
                                             const float* weight, const float* bias, float* d_x, T* d_delta,          \
                                             T* normed) {                                                             \
    add_norm_backward<T>(rows, width, d_total, d_normed, x, mean, scale, weight, bias, d_x, d_delta, normed);         \
  }                                                                                                                   \
  extern "C" void activation_##SUFFIX(int kind, int64_t count, const T* gate, const T* up, T* out) {                  \
    activation<T>(kind, count, gate, up, out);                                                                        \
  }                                                                                                                   \
  extern "C" void activation_backward_##SUFFIX(int kind, int64_t count, T* gate, T* up, T* d_out) {                   \
    activation_backward<T>(kind, count, gate, up, d_out);                                                             \
  }                                                                                                                   \
  extern "C" void cross_entropy_##SUFFIX(int64_t rows, int64_t width, int64_t stride, T* logits,                      \
                                         const int64_t* targets, int32_t gradient, float* losses) {                   \
    cross_entropy<T>(rows, width, stride, logits, targets, gradient != 0, losses);                                    \
  }

EXPORT(float, fp32)
EXPORT(bfloat16, bf16)
