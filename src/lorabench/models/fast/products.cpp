// Sums of matrix products in bfloat16 on processors with AVX512-BF16: out = left1 * right1 + left2 * right2 + … + bias.
//
// A sum stays in registers until it is complete, so an adapter's product costs its multiplications alone. Everything runs
// on pairs: two neighbours along the inner dimension, which the processor multiplies and adds in one go. A panel is 32
// columns of the right factors, laid out pair by pair in a buffer of the thread; left factors are read where they lie.
//
// Processors with AMX are left to the matrix library, which multiplies faster there.

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && !defined(__AMX_BF16__)

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "numbers.hpp"

namespace {

constexpr int64_t kLanes = 16;           // pairs, or sums in float, of a vector
constexpr int64_t kColumns = 2 * kLanes; // of a panel
constexpr int64_t kRows = 12;            // of a tile: 24 sums, two vectors of the panel and a spread pair fit the registers
constexpr int64_t kBandRows = 96;        // the smallest piece of work is so many rows of a panel
constexpr int64_t kPanelInner = 4096;    // of a panel's inner dimension at once: 256 KiB of the second cache

struct Term {
  int64_t inner;
  const bfloat16* left;
  int64_t left_row, left_inner;  // strides, one of them 1
  const bfloat16* right;
  int64_t right_inner, right_column;  // strides, one of them 1
};

struct Product {
  int64_t rows, columns, num_terms;
  const bfloat16* bias;
  void* out;
  int64_t out_row, out_column;
  int64_t out_is_float;
};

int64_t half_up(int64_t count) { return (count + 1) / 2; }

__mmask32 first(int64_t count) { return count >= 32 ? ~__mmask32(0) : count <= 0 ? 0 : (__mmask32(1) << count) - 1; }

__m512i load32(const bfloat16* from, int64_t count) { return _mm512_maskz_loadu_epi16(first(count), from); }

// Rows of `from` are the inner dimension: the pairs of `columns` columns, row by row of `to`.
void pair_rows(const bfloat16* from, int64_t stride, int64_t inner, int64_t columns, uint32_t* to, int64_t to_stride) {
  alignas(64) uint16_t low[32], high[32];
  for (int i = 0; i < 32; ++i) {
    low[i] = uint16_t(i / 2 + (i % 2) * 32);
    high[i] = uint16_t(low[i] + 16);
  }
  const __m512i take_low = _mm512_load_si512(low), take_high = _mm512_load_si512(high);
  for (int64_t row = 0; row < inner; row += 2, to += to_stride)
    for (int64_t column = 0; column < columns; column += kColumns) {
      const bfloat16* at = from + row * stride + column;
      __m512i even = load32(at, columns - column);
      __m512i odd = row + 1 < inner ? load32(at + stride, columns - column) : _mm512_setzero_si512();
      _mm512_storeu_si512(to + column, _mm512_permutex2var_epi16(even, take_low, odd));
      _mm512_storeu_si512(to + column + kLanes, _mm512_permutex2var_epi16(even, take_high, odd));
    }
}

// 16 vectors of 16 pairs, transposed.
void transpose(__m512i v[16]) {
  __m512i w[16];
  for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(w[i + j], w[i + j + 2]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(w[i + j], w[i + j + 2]);
    }
  for (int i = 0; i < 4; ++i) {  // v[4 a + i] holds column 4 b + i of rows 4 a … 4 a + 3 in its quarter b
    __m512i ab = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x44), AB = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xee);
    __m512i cd = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x44), CD = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xee);
    w[i] = _mm512_shuffle_i32x4(ab, cd, 0x88);
    w[4 + i] = _mm512_shuffle_i32x4(ab, cd, 0xdd);
    w[8 + i] = _mm512_shuffle_i32x4(AB, CD, 0x88);
    w[12 + i] = _mm512_shuffle_i32x4(AB, CD, 0xdd);
  }
  std::copy(w, w + 16, v);
}

// Rows of `from` are the panel's columns, at most 32.
void pair_columns(const bfloat16* from, int64_t stride, int64_t inner, int64_t columns, uint32_t* to) {
  for (int64_t start = 0; start < kColumns; start += kLanes)
    for (int64_t k = 0; k < inner; k += 2 * kLanes) {
      __m512i vectors[kLanes];
      for (int64_t i = 0; i < kLanes; ++i)
        vectors[i] = start + i < columns ? load32(from + (start + i) * stride + k, inner - k) : _mm512_setzero_si512();
      transpose(vectors);
      int64_t pairs = std::min(kLanes, half_up(inner - k));
      for (int64_t i = 0; i < pairs; ++i) _mm512_storeu_si512(to + (k / 2 + i) * kColumns + start, vectors[i]);
    }
}

// A stretch of one term's inner dimension: the left factor's first row there, and its place in the panel.
struct Stretch {
  const void* left;     // bfloat16 rows, or pairs
  int64_t left_stride;  // between rows of bfloat16, or between pairs of one row
  int64_t inner;
  const uint32_t* panel;
};

template <bool paired>
inline uint32_t pair_at(const Stretch& stretch, int64_t row, int64_t pair) {
  uint32_t value;
  if (paired)
    value = static_cast<const uint32_t*>(stretch.left)[pair * stretch.left_stride + row];
  else
    std::memcpy(&value, static_cast<const bfloat16*>(stretch.left) + row * stretch.left_stride + 2 * pair, sizeof value);
  return value;
}

inline __m512 multiply_add(__m512 sum, uint32_t left, __m512i right) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(int32_t(left)), (__m512bh)right);
}

template <int rows, int vectors, bool paired>
inline __attribute__((always_inline)) void add_pair(const Stretch& here, int64_t pair, __m512 (&tile)[rows][vectors]) {
  __m512i right[vectors];
  for (int v = 0; v < vectors; ++v) right[v] = _mm512_loadu_si512(here.panel + pair * kColumns + v * kLanes);
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
    uint32_t left = pair_at<paired>(here, i, pair);
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) tile[i][v] = multiply_add(tile[i][v], left, right[v]);
  }
}

// sums [rows, vectors] += the stretches' products. A narrow tile has two sets of sums, for even and for odd pairs, since
// each multiplication waits for the one before it.
template <int rows, int vectors, bool paired>
void add_tile(const Stretch* stretches, int64_t count, int64_t row, float* sums) {
  constexpr int sets = 3 - vectors;
  __m512 tile[sets][rows][vectors];
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) {
      tile[0][i][v] = _mm512_loadu_ps(sums + i * kColumns + v * kLanes);
      if (sets == 2) tile[sets - 1][i][v] = _mm512_setzero_ps();
    }
  for (const Stretch* stretch = stretches; stretch != stretches + count; ++stretch) {
    Stretch here = *stretch;
    here.left = paired ? static_cast<const void*>(static_cast<const uint32_t*>(here.left) + row)
                       : static_cast<const void*>(static_cast<const bfloat16*>(here.left) + row * here.left_stride);
    int64_t pairs = paired ? half_up(here.inner) : here.inner / 2, pair = 0;
    for (; pair + sets <= pairs; pair += sets)
      for (int set = 0; set < sets; ++set) add_pair<rows, vectors, paired>(here, pair + set, tile[set]);
    if (sets == 2 && pair < pairs) add_pair<rows, vectors, paired>(here, pair, tile[0]);
    if (!paired && here.inner % 2)
      for (int i = 0; i < rows; ++i) {
        uint32_t left = static_cast<const bfloat16*>(here.left)[i * here.left_stride + here.inner - 1].bits;
        for (int v = 0; v < vectors; ++v)
          tile[0][i][v] =
              multiply_add(tile[0][i][v], left, _mm512_loadu_si512(here.panel + pairs * kColumns + v * kLanes));
      }
  }
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) {
      if (sets == 2) tile[0][i][v] = _mm512_add_ps(tile[0][i][v], tile[sets - 1][i][v]);
      _mm512_storeu_ps(sums + i * kColumns + v * kLanes, tile[0][i][v]);
    }
}

template <bool paired>
int64_t add_rows(const Stretch* stretches, int64_t count, int64_t row, int64_t left, int64_t columns, float* sums) {
  bool narrow = columns <= kLanes;
#define TILE(ROWS)                                                              \
  if (left >= ROWS && (ROWS != kRows || left == kRows || left >= 2 * kRows)) {  \
    if (narrow)                                                                 \
      add_tile<ROWS, 1, paired>(stretches, count, row, sums);                   \
    else                                                                        \
      add_tile<ROWS, 2, paired>(stretches, count, row, sums);                   \
    return ROWS;                                                                \
  }
  TILE(12) TILE(8) TILE(4) TILE(2) TILE(1)
#undef TILE
  return 0;
}

void store_row(const Product& product, int64_t row, int64_t column, const float* sums) {
  int64_t count = std::min(kColumns, product.columns - column);
  int64_t place = row * product.out_row + column * product.out_column;
  __m512 low = _mm512_loadu_ps(sums), high = _mm512_loadu_ps(sums + kLanes);
  if (product.bias) {
    __m512i bias = load32(product.bias + column, count);
    __m256i halves[2] = {_mm512_castsi512_si256(bias), _mm512_extracti64x4_epi64(bias, 1)};
    low = _mm512_add_ps(low, _mm512_cvtpbh_ps((__m256bh)halves[0]));
    high = _mm512_add_ps(high, _mm512_cvtpbh_ps((__m256bh)halves[1]));
  }
  if (!product.out_is_float && product.out_column == 1) {
    __m512i narrow = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    _mm512_mask_storeu_epi16(static_cast<bfloat16*>(product.out) + place, first(count), narrow);
    return;
  }
  float values[kColumns];
  _mm512_storeu_ps(values, low);
  _mm512_storeu_ps(values + kLanes, high);
  if (product.out_is_float) {
    float* out = static_cast<float*>(product.out) + place;
    for (int64_t i = 0; i < count; ++i) out[i * product.out_column] = values[i];
  } else {
    bfloat16* out = static_cast<bfloat16*>(product.out) + place;
    for (int64_t i = 0; i < count; ++i) store(out[i * product.out_column], values[i]);
  }
}

// One thread's buffers, kept between calls.
struct Workspace {
  std::vector<uint32_t> panel, left;
  std::vector<float> sums;
  const Product* paired_for = nullptr;  // whose left factors lie in `left`
};

// Left factors whose rows are the inner dimension, as pairs; one after the other.
void pair_left(const Product& product, const Term* terms, Workspace& space) {
  if (space.paired_for == &product) return;
  space.paired_for = &product;
  int64_t stride = (product.rows + kColumns - 1) / kColumns * kColumns, size = 0;
  for (int64_t i = 0; i < product.num_terms; ++i) size += half_up(terms[i].inner) * stride;
  if (int64_t(space.left.size()) < size) space.left.resize(size_t(size));
  uint32_t* to = space.left.data();
  for (int64_t i = 0; i < product.num_terms; ++i) {
    pair_rows(terms[i].left, terms[i].left_inner, terms[i].inner, product.rows, to, stride);
    to += half_up(terms[i].inner) * stride;
  }
}

// Rows [begin, end) of one panel.
void multiply_panel(const Product& product, const Term* terms, int64_t column, int64_t begin, int64_t end,
                    Workspace& space) {
  const bool paired = terms[0].left_row == 1 && terms[0].left_inner != 1;
  const int64_t columns = std::min(kColumns, product.columns - column);
  const int64_t left_stride = (product.rows + kColumns - 1) / kColumns * kColumns;
  if (paired) pair_left(product, terms, space);
  space.panel.resize(size_t(kPanelInner / 2 * kColumns));
  space.sums.assign(size_t((end - begin) * kColumns), 0.0f);
  std::vector<Stretch> stretches;
  int64_t used = 0, term = 0, offset = 0;
  const uint32_t* paired_left = space.left.data();
  while (term < product.num_terms) {
    const Term& from = terms[term];
    int64_t inner = std::min(from.inner - offset, kPanelInner - used);
    uint32_t* panel = space.panel.data() + used / 2 * kColumns;
    const bfloat16* right = from.right + offset * from.right_inner + column * from.right_column;
    if (from.right_column == 1)
      pair_rows(right, from.right_inner, inner, columns, panel, kColumns);
    else
      pair_columns(right, from.right_column, inner, columns, panel);
    const void* left = paired ? static_cast<const void*>(paired_left + offset / 2 * left_stride)
                              : static_cast<const void*>(from.left + offset);
    stretches.push_back({left, paired ? left_stride : from.left_row, inner, panel});
    used += (inner + 1) / 2 * 2;
    offset += inner;
    if (offset == from.inner) {
      paired_left += half_up(from.inner) * left_stride;
      ++term;
      offset = 0;
    }
    if (used >= kPanelInner || term == product.num_terms) {
      for (int64_t row = begin; row < end;) {
        float* sums = space.sums.data() + (row - begin) * kColumns;
        int64_t count = int64_t(stretches.size());
        row += paired ? add_rows<true>(stretches.data(), count, row, end - row, columns, sums)
                      : add_rows<false>(stretches.data(), count, row, end - row, columns, sums);
      }
      stretches.clear();
      used = 0;
    }
  }
  for (int64_t row = begin; row < end; ++row)
    store_row(product, row, column, space.sums.data() + (row - begin) * kColumns);
}

// Bands of a product, panel by panel; a band's cost is its multiplications.
struct Bands {
  int64_t per_panel, panels, inner;
  explicit Bands(const Product& product, const Term* terms)
      : per_panel((product.rows + kBandRows - 1) / kBandRows),
        panels((product.columns + kColumns - 1) / kColumns),
        inner(0) {
    for (int64_t i = 0; i < product.num_terms; ++i) inner += terms[i].inner;
  }
  int64_t cost(const Product& product) const { return product.rows * panels * inner; }
};

// The thread's share of all products' bands: those whose middle lies in its share of the cost.
void multiply_share(const Product* products, int64_t count, const Term* terms, int thread, int num_threads) {
  static thread_local Workspace space;
  space.paired_for = nullptr;
  int64_t total = 0;
  const Term* at = terms;
  for (int64_t i = 0; i < count; at += products[i].num_terms, ++i) total += Bands(products[i], at).cost(products[i]);
  int64_t low = total * thread / num_threads, high = total * (thread + 1) / num_threads, before = 0;
  at = terms;
  for (int64_t i = 0; i < count; at += products[i].num_terms, ++i) {
    Bands bands(products[i], at);
    for (int64_t panel = 0; panel < bands.panels; ++panel) {
      int64_t begin = -1, end = -1;
      for (int64_t row = 0; row < products[i].rows; row += kBandRows) {
        int64_t rows = std::min(kBandRows, products[i].rows - row), cost = rows * bands.inner;
        int64_t middle = before + cost / 2;
        if (middle >= low && middle < high) {
          if (begin < 0) begin = row;
          end = row + rows;
        }
        before += cost;
      }
      if (begin >= 0) multiply_panel(products[i], at, panel * kColumns, begin, end, space);
    }
  }
}

}  // namespace

extern "C" int products_available() { return 1; }

extern "C" void products(const Product* products, int64_t count, const Term* terms) {
#pragma omp parallel
  multiply_share(products, count, terms, omp_get_thread_num(), omp_get_num_threads());
}

#else

extern "C" int products_available() { return 0; }

#endif
