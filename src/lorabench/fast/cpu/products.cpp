// Sums of matrix products in bfloat16 on processors with AVX512-BF16: out = left1 * right1 + left2 * right2 + … + bias.
//
// A sum stays in registers until it is complete, so an adapter's product costs its multiplications alone. Everything
// runs on pairs: two neighbours along the inner dimension, which the processor multiplies and adds in one go. A panel
// is 32 columns of the right factors, laid out pair by pair in a buffer of the thread; left factors are read in place.
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
constexpr int64_t kRows = 12;            // of a tile: 24 sums, two vectors of a panel, a spread pair fit the registers
constexpr int64_t kBandRows = 96;        // the smallest piece of work is so many rows of a panel
constexpr int64_t kPanelInner = 4096;    // of a panel's inner dimension at once: 256 KiB of the second cache

// One left * right; strides count elements.
struct Term {
  int64_t inner;
  const bfloat16* left;
  int64_t left_row, left_inner;  // strides; the second one is 1, or the first one where there is no other term
  const bfloat16* right;
  int64_t right_inner, right_column;  // strides, one of them 1
};

// Terms of all products lie one after the other.
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
    std::memcpy(&value, static_cast<const bfloat16*>(stretch.left) + row * stretch.left_stride + 2 * pair, 4);
  return value;
}

inline __m512 multiply_add(__m512 sum, uint32_t left, __m512i right) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(int32_t(left)), (__m512bh)right);
}

template <int rows, int vectors, bool paired>
inline __attribute__((always_inline)) void add_pair(const Stretch& here, int64_t pair, __m512 (&tile)[rows][vectors]) {
  __m512i right[vectors];
  for (int v = 0; v < vectors; ++v) right[v] = _mm512_load_si512(here.panel + pair * kColumns + v * kLanes);
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
    uint32_t left = pair_at<paired>(here, i, pair);
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) tile[i][v] = multiply_add(tile[i][v], left, right[v]);
  }
}

void store_row(const Product& product, int64_t row, int64_t column, __m512 low, __m512 high) {
  int64_t count = std::min(kColumns, product.columns - column);
  int64_t place = row * product.out_row + column * product.out_column;
  if (product.bias) {
    __m512i bias = load32(product.bias + column, count);
    low = _mm512_add_ps(low, _mm512_cvtpbh_ps((__m256bh)_mm512_castsi512_si256(bias)));
    high = _mm512_add_ps(high, _mm512_cvtpbh_ps((__m256bh)_mm512_extracti64x4_epi64(bias, 1)));
  }
  if (!product.out_is_float && product.out_column == 1) {
    __m512i narrow = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    _mm512_mask_storeu_epi16(static_cast<bfloat16*>(product.out) + place, first(count), narrow);
    return;
  }
  float values[kColumns];
  _mm512_storeu_ps(values, low);
  _mm512_storeu_ps(values + kLanes, high);
  for (int64_t i = 0; i < count; ++i, place += product.out_column) {
    if (product.out_is_float)
      store(static_cast<float*>(product.out)[place], values[i]);
    else
      store(static_cast<bfloat16*>(product.out)[place], values[i]);
  }
}

// Rows of one panel: over which stretches, which sums came before, and whether they are complete afterwards.
struct Step {
  const Product* product;
  int64_t column;
  std::vector<Stretch> stretches;
  bool first, last;
};

// Adds the stretches' products. A narrow tile has two sets of sums, for even and for odd pairs, since each
// multiplication waits for the one before it.
template <int rows, int vectors, bool paired>
__attribute__((noinline)) void add_tile(const Step& step, int64_t row, float* sums) {
  constexpr int sets = 3 - vectors;
  __m512 tile[sets][rows][vectors];
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) {
      tile[0][i][v] = step.first ? _mm512_setzero_ps() : _mm512_load_ps(sums + i * kColumns + v * kLanes);
      if (sets == 2) tile[sets - 1][i][v] = _mm512_setzero_ps();
    }
  for (Stretch here : step.stretches) {
    here.left = paired ? static_cast<const void*>(static_cast<const uint32_t*>(here.left) + row)
                       : static_cast<const void*>(static_cast<const bfloat16*>(here.left) + row * here.left_stride);
    int64_t pairs = paired ? half_up(here.inner) : here.inner / 2, pair = 0;
    for (; pair + sets <= pairs; pair += sets)
#pragma GCC unroll 2
      for (int set = 0; set < sets; ++set) add_pair<rows, vectors, paired>(here, pair + set, tile[set]);
    if (sets == 2 && pair < pairs) add_pair<rows, vectors, paired>(here, pair, tile[0]);
    if (!paired && here.inner % 2)
      for (int i = 0; i < rows; ++i) {
        uint32_t left = static_cast<const bfloat16*>(here.left)[i * here.left_stride + here.inner - 1].bits;
        for (int v = 0; v < vectors; ++v)
          tile[0][i][v] =
              multiply_add(tile[0][i][v], left, _mm512_load_si512(here.panel + pairs * kColumns + v * kLanes));
      }
  }
  for (int i = 0; i < rows; ++i) {
    if (sets == 2) tile[0][i][0] = _mm512_add_ps(tile[0][i][0], tile[sets - 1][i][0]);
    if (step.last)
      store_row(*step.product, row + i, step.column, tile[0][i][0], vectors == 2 ? tile[0][i][vectors - 1] : __m512{});
    else
      for (int v = 0; v < vectors; ++v) _mm512_store_ps(sums + i * kColumns + v * kLanes, tile[0][i][v]);
  }
}

// As many rows as a tile takes, at most `left`; says how many.
template <bool paired>
int64_t add_rows(const Step& step, int64_t row, int64_t left, float* sums) {
  bool narrow = step.product->columns - step.column <= kLanes;
#define TILE(ROWS)                                                             \
  if (left >= ROWS && (ROWS != kRows || left == kRows || left >= 2 * kRows)) { \
    if (narrow)                                                                \
      add_tile<ROWS, 1, paired>(step, row, sums);                              \
    else                                                                       \
      add_tile<ROWS, 2, paired>(step, row, sums);                              \
    return ROWS;                                                               \
  }
  TILE(12) TILE(8) TILE(4) TILE(2) TILE(1)
#undef TILE
  return 0;
}

// A stretch of one term's inner dimension.
struct Part {
  const Term* term;
  int64_t offset, inner;
};

// Parts whose pairs fit one panel together.
typedef std::vector<Part> Block;

std::vector<Block> split_inner(const Product& product, const Term* terms) {
  std::vector<Block> blocks(1);
  int64_t used = 0;
  for (const Term* term = terms; term != terms + product.num_terms; ++term)
    for (int64_t offset = 0; offset < term->inner;) {
      if (used >= kPanelInner) {
        blocks.emplace_back();
        used = 0;
      }
      int64_t inner = std::min(term->inner - offset, kPanelInner - used);
      blocks.back().push_back({term, offset, inner});
      used += 2 * half_up(inner);
      offset += inner;
    }
  return blocks;
}

// Rows [begin, end) of one panel.
struct Strip {
  int64_t column, begin, end;
};

// Asks for a panel's right factors line by line while another panel is computed.
class Prefetch {
 public:
  Prefetch(const Block* block, int64_t column) : block_(block), column_(column) {}

  void lines(int64_t count) {
    while (block_ && count > 0 && part_ < block_->size()) {
      const Part& part = (*block_)[part_];
      const Term& term = *part.term;
      const bfloat16* start = term.right + part.offset * term.right_inner + column_ * term.right_column;
      const int64_t all = lines_of(part), per_column = lines_per_column(part);
      for (; count > 0 && line_ < all; ++line_, --count)
        _mm_prefetch(in_rows(part) ? start + line_ * term.right_inner
                                   : start + line_ / per_column * term.right_column + line_ % per_column * kColumns,
                     _MM_HINT_T1);
      if (line_ == all) {
        ++part_;
        line_ = 0;
      }
    }
  }

  // All of them in so many calls.
  int64_t share(int64_t calls) const {
    int64_t all = 0;
    if (block_)
      for (const Part& part : *block_) all += lines_of(part);
    return (all + calls - 1) / calls;
  }

 private:
  static bool in_rows(const Part& part) { return part.term->right_column == 1; }
  static int64_t lines_per_column(const Part& part) { return half_up(part.inner) / kLanes + 1; }
  static int64_t lines_of(const Part& part) { return in_rows(part) ? part.inner : kColumns * lines_per_column(part); }

  const Block* block_;
  int64_t column_, line_ = 0;
  size_t part_ = 0;
};

int64_t paired_stride(const Product& product) { return round_up(product.rows, kColumns); }

// Lays a panel of the block out and says where its factors are.
std::vector<Stretch> fill_panel(const Product& product, const Block& block, int64_t column, const uint32_t* pairs,
                                uint32_t* panel) {
  std::vector<Stretch> stretches;
  int64_t columns = std::min(kColumns, product.columns - column);
  for (const Part& part : block) {
    const Term& term = *part.term;
    const bfloat16* right = term.right + part.offset * term.right_inner + column * term.right_column;
    if (term.right_column == 1)
      pair_rows(right, term.right_inner, part.inner, columns, panel, kColumns);
    else
      pair_columns(right, term.right_column, part.inner, columns, panel);
    int64_t stride = paired_stride(product);
    if (pairs)
      stretches.push_back({pairs + part.offset / 2 * stride, stride, part.inner, panel});
    else
      stretches.push_back({term.left + part.offset, term.left_row, part.inner, panel});
    panel += half_up(part.inner) * kColumns;
  }
  return stretches;
}

void multiply_strips(const Product& product, const Term* terms, const std::vector<Strip>& strips) {
  const std::vector<Block> blocks = split_inner(product, terms);
  const bool paired = terms->left_inner != 1;
  Buffer<uint32_t> panel(kPanelInner / 2 * kColumns, false);
  Buffer<uint32_t> pairs(paired ? half_up(terms->inner) * paired_stride(product) : 1, false);
  if (paired) pair_rows(terms->left, terms->left_inner, terms->inner, product.rows, pairs, paired_stride(product));
  int64_t kept = 1;  // sums of all strips, where they are complete after several blocks only
  for (const Strip& strip : strips) kept += blocks.size() > 1 ? (strip.end - strip.begin) * kColumns : 0;
  Buffer<float> all_sums(kept, false);
  for (size_t b = 0; b < blocks.size(); ++b) {
    float* sums = all_sums;
    for (size_t s = 0; s < strips.size(); ++s) {
      const Strip& strip = strips[s];
      Step step{&product, strip.column,
                fill_panel(product, blocks[b], strip.column, paired ? static_cast<uint32_t*>(pairs) : nullptr, panel),
                b == 0, b + 1 == blocks.size()};
      bool last = s + 1 == strips.size();
      Prefetch next(!last ? &blocks[b] : b + 1 < blocks.size() ? &blocks[b + 1] : nullptr,
                    strips[last ? 0 : s + 1].column);
      int64_t rows = strip.end - strip.begin, lines = next.share(rows / kRows + 1);
      for (int64_t row = 0; row < rows;) {
        next.lines(lines);
        float* tile = sums + row * kColumns;
        row += paired ? add_rows<true>(step, strip.begin + row, rows - row, tile)
                      : add_rows<false>(step, strip.begin + row, rows - row, tile);
      }
      if (blocks.size() > 1) sums += rows * kColumns;
    }
  }
}

int64_t inner_of(const Product& product, const Term* terms) {
  int64_t inner = 0;
  for (int64_t i = 0; i < product.num_terms; ++i) inner += terms[i].inner;
  return inner;
}

// The thread's share: of all bands of all products, one after the other, those whose middle lies in its share of the
// multiplications.
void multiply_share(const Product* products, int64_t count, const Term* terms, int64_t thread, int64_t num_threads) {
  int64_t total = 0, before = 0;
  const Term* at = terms;
  for (int64_t i = 0; i < count; at += products[i].num_terms, ++i)
    total += products[i].rows * (round_up(products[i].columns, kColumns) / kColumns) * inner_of(products[i], at);
  at = terms;
  for (int64_t i = 0; i < count; at += products[i].num_terms, ++i) {
    const Product& product = products[i];
    const int64_t inner = inner_of(product, at);
    std::vector<Strip> strips;
    for (int64_t column = 0; column < product.columns; column += kColumns)
      for (int64_t row = 0; row < product.rows; row += kBandRows) {
        int64_t end = std::min(row + kBandRows, product.rows), cost = (end - row) * inner;
        int64_t middle = before + cost / 2;
        before += cost;
        if (middle < total * thread / num_threads || middle >= total * (thread + 1) / num_threads) continue;
        if (!strips.empty() && strips.back().column == column)
          strips.back().end = end;
        else
          strips.push_back({column, row, end});
      }
    if (!strips.empty()) multiply_strips(product, at, strips);
  }
}

}  // namespace

extern "C" int products_available() { return 1; }

extern "C" int products(const Product* products, int64_t count, const Term* terms) {
  return attempt([=] {
    in_every_thread([=] { multiply_share(products, count, terms, omp_get_thread_num(), omp_get_num_threads()); });
  });
}

#else

extern "C" int products_available() { return 0; }

#endif
