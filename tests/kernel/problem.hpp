// Attention problems for the kernel tests: tensors with poisoned padding around every row, the masks a kernel may be
// asked for, and the host kernels' answer beside the float64 reference's.
#pragma once

#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/float_formats.hpp"
#include "core/thread_pool.hpp"
#include "kernels/host/attend.hpp"
#include "kernels/host/reference.hpp"
#include "kernels/rowwise.hpp"
#include "support/compare.hpp"

namespace orrery::test {

// Owns what a view shows. Rows are `padding` elements apart, tokens a little more, and all between is poison.
class Tensor {
 public:
  Tensor(Dtype dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width,
         std::int64_t padding = 3) {
    view_ = {nullptr, dtype, batch, tokens, heads, width, 0, 0, width + padding};
    view_.token_stride = heads * view_.head_stride + padding;
    view_.batch_stride = tokens * view_.token_stride + padding;
    memory_.resize(static_cast<std::size_t>(batch * view_.batch_stride + 2 * padding + 1) * size_of(dtype));
    poison(memory_);
    view_.data = memory_.data() + static_cast<std::size_t>(padding) * size_of(dtype);
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }
  const std::vector<std::byte>& memory() const { return memory_; }

  double get(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t c) const {
    return load_element(view_, b, t, h, c);
  }
  void set(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t c, float value) {
    std::byte* at = view_.at(b, t, h) + c * static_cast<std::int64_t>(size_of(view_.dtype));
    if (view_.dtype == Dtype::fp32) {
      std::memcpy(at, &value, sizeof value);
    } else {
      const std::uint16_t bits = view_.dtype == Dtype::bf16 ? float_to_bf16(value) : float_to_fp16(value);
      std::memcpy(at, &bits, sizeof bits);
    }
  }
  // value(b, t, h, c) for every element.
  template <typename Value>
  Tensor& fill(const Value& value) {
    for (std::int64_t b = 0; b < view_.batch; ++b) {
      for (std::int64_t t = 0; t < view_.tokens; ++t) {
        for (std::int64_t h = 0; h < view_.heads; ++h) {
          for (std::int64_t c = 0; c < view_.width; ++c) set(b, t, h, c, static_cast<float>(value(b, t, h, c)));
        }
      }
    }
    return *this;
  }
  Tensor& fill_normal(std::uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    return fill([&](auto...) { return normal(generator); });
  }
  Tensor& fill_constant(float value) {
    return fill([&](auto...) { return value; });
  }

  bool padding_intact() const {
    std::vector<std::byte> copy = memory_;
    const std::ptrdiff_t offset = static_cast<std::byte*>(view_.data) - memory_.data();
    for (std::int64_t b = 0; b < view_.batch; ++b) {
      for (std::int64_t t = 0; t < view_.tokens; ++t) {
        for (std::int64_t h = 0; h < view_.heads; ++h) {
          const auto size = static_cast<std::int64_t>(size_of(view_.dtype));
          for (std::int64_t i = 0; i < view_.width * size; ++i) {
            const std::int64_t at = offset + view_.offset(b, t, h) * size + i;
            copy[at] = static_cast<std::byte>(at % 2 ? kPoison >> 8 : kPoison & 0xff);
          }
        }
      }
    }
    return still_poisoned(copy);
  }

 private:
  std::vector<std::byte> memory_;
  TensorView view_;
};

enum class Mask { full, causal, window, window_sinks, documents, empty_rows, one_key, random };
inline constexpr Mask kMasks[] = {Mask::full,      Mask::causal,     Mask::window,  Mask::window_sinks,
                                  Mask::documents, Mask::empty_rows, Mask::one_key, Mask::random};
inline const char* name(Mask mask) {
  const char* names[] = {"full", "causal", "window", "window+sinks", "documents", "empty rows", "one key", "random"};
  return names[static_cast<int>(mask)];
}

inline std::vector<kernels::KeyRange> key_ranges(Mask mask, int query_len, int key_len) {
  std::vector<kernels::KeyRange> ranges(static_cast<std::size_t>(query_len));
  std::mt19937 generator(7);
  auto below = [&](int bound) { return static_cast<int>(generator() % static_cast<unsigned>(bound + 1)); };
  for (int i = 0; i < query_len; ++i) {
    const int causal = std::clamp(i + 1 + key_len - query_len, 0, key_len);
    const int window = std::max(causal - 20, 0);
    const int document = i / 37 * 37;
    int cuts[4] = {below(key_len), below(key_len), below(key_len), below(key_len)};
    std::sort(cuts, cuts + 4);
    kernels::KeyRange& range = ranges[static_cast<std::size_t>(i)];
    switch (mask) {
      case Mask::full:
        range = {0, key_len, 0, 0};
        break;
      case Mask::causal:
        range = {0, causal, 0, 0};
        break;
      case Mask::window:
        range = {window, causal, 0, 0};
        break;
      case Mask::window_sinks:
        range = {window, causal, 0, std::min(5, window)};
        break;
      case Mask::documents:
        range = {std::min(document, key_len), std::min(document + 37, key_len), 0, 0};
        break;
      case Mask::empty_rows:
        range = i % 3 == 1 ? kernels::KeyRange{} : kernels::KeyRange{0, causal, 0, 0};
        break;
      case Mask::one_key:
        if (key_len > 0) range = {i * 7 % key_len, i * 7 % key_len + 1, 0, 0};
        break;
      case Mask::random:
        range = i % 2 ? kernels::KeyRange{cuts[0], cuts[1], cuts[2], cuts[3]}
                      : kernels::KeyRange{cuts[2], cuts[3], cuts[0], cuts[1]};
        break;
    }
  }
  return ranges;
}

inline bool sees(const kernels::KeyRange& range, std::int64_t key) {
  return (range.begin <= key && key < range.end) || (range.sink_begin <= key && key < range.sink_end);
}

struct Shape {
  Dtype dtype = Dtype::fp32;
  std::int64_t batch = 1, query_len = 1, key_len = 1, heads = 1, kv_heads = 1, head_dim = 64;
};

inline std::string describe(const Shape& s, Mask mask) {
  return std::string(to_string(s.dtype)) + " batch " + std::to_string(s.batch) + " queries " +
         std::to_string(s.query_len) + " keys " + std::to_string(s.key_len) + " heads " + std::to_string(s.heads) +
         "/" + std::to_string(s.kv_heads) + " head_dim " + std::to_string(s.head_dim) + " " + name(mask);
}

// One problem and what the kernels made of it.
class Problem {
 public:
  Problem(const Shape& s, std::vector<kernels::KeyRange> rows_see, std::uint32_t seed = 1)
      : query(s.dtype, s.batch, s.query_len, s.heads, s.head_dim),
        key(s.dtype, s.batch, s.key_len, s.kv_heads, s.head_dim),
        value(s.dtype, s.batch, s.key_len, s.kv_heads, s.head_dim),
        grad_out(s.dtype, s.batch, s.query_len, s.heads, s.head_dim),
        accumulator(Dtype::fp32, s.batch, s.query_len, s.heads, s.head_dim),
        row_max(Dtype::fp32, s.batch, s.query_len, s.heads, 1),
        row_sum(Dtype::fp32, s.batch, s.query_len, s.heads, 1),
        out(Dtype::fp32, s.batch, s.query_len, s.heads, s.head_dim),
        lse(Dtype::fp32, s.batch, s.query_len, s.heads, 1),
        delta(Dtype::fp32, s.batch, s.query_len, s.heads, 1),
        grad_query(Dtype::fp32, s.batch, s.query_len, s.heads, s.head_dim),
        grad_key(Dtype::fp32, s.batch, s.key_len, s.kv_heads, s.head_dim),
        grad_value(Dtype::fp32, s.batch, s.key_len, s.kv_heads, s.head_dim),
        ranges(std::move(rows_see)),
        scale(1.0f / std::sqrt(static_cast<float>(s.head_dim))),
        head_dim(static_cast<int>(s.head_dim)) {
    query.fill_normal(seed);
    key.fill_normal(seed + 1);
    value.fill_normal(seed + 2);
    grad_out.fill_normal(seed + 3);
  }

  kernels::State state() const { return {accumulator, row_max, row_sum}; }
  kernels::reference::Admits admits() const {
    return [this](std::int64_t i, std::int64_t j) { return sees(ranges[static_cast<std::size_t>(i)], j); };
  }

  // Folds keys [begin, end) into the state.
  void fold(ThreadPool& pool, std::int64_t begin, std::int64_t end) {
    std::vector<kernels::KeyRange> shifted = ranges;
    const auto by = static_cast<std::int32_t>(begin);
    for (auto& r : shifted) r = {r.begin - by, r.end - by, r.sink_begin - by, r.sink_end - by};
    const Scratch scratch(kernels::attend_scratch_bytes(head_dim, pool.threads(), false));
    kernels::attend_forward(
        {query, rows(key, begin, end), rows(value, begin, end), accumulator, row_max, row_sum, shifted.data(), scale},
        pool, scratch.bytes());
  }
  void forward(ThreadPool& pool) {
    kernels::clear_state(state(), pool);
    fold(pool, 0, key.view().tokens);
    kernels::normalize(state(), out, lse, pool);
  }
  void clear_gradients(ThreadPool& pool) {
    for (const Tensor* gradient : {&grad_query, &grad_key, &grad_value}) kernels::clear(*gradient, pool);
  }
  // Adds the gradients that come from keys [begin, end).
  void add_gradients(ThreadPool& pool, std::int64_t begin, std::int64_t end) {
    std::vector<kernels::KeyRange> shifted = ranges;
    const auto by = static_cast<std::int32_t>(begin);
    for (auto& r : shifted) r = {r.begin - by, r.end - by, r.sink_begin - by, r.sink_end - by};
    const Scratch scratch(kernels::attend_scratch_bytes(head_dim, pool.threads(), true));
    kernels::attend_backward({query, grad_out, rows(key, begin, end), rows(value, begin, end), lse, delta, grad_query,
                              rows(grad_key, begin, end), rows(grad_value, begin, end), shifted.data(), scale},
                             pool, scratch.bytes());
  }
  void backward(ThreadPool& pool) {
    kernels::delta(out, grad_out, delta, pool);
    clear_gradients(pool);
    add_gradients(pool, 0, key.view().tokens);
  }

  Tensor query, key, value, grad_out, accumulator, row_max, row_sum, out, lse, delta, grad_query, grad_key, grad_value;
  std::vector<kernels::KeyRange> ranges;
  float scale;
  int head_dim;

 private:
  // Scratch of exactly the size asked for, holding NaNs: a kernel may rely on nothing in it.
  class Scratch {
   public:
    explicit Scratch(std::size_t size) : size_(size), memory_(hwy::AllocateAligned<std::byte>(size)) {
      poison(bytes());
    }
    std::span<std::byte> bytes() const { return {memory_.get(), size_}; }

   private:
    std::size_t size_;
    hwy::AlignedFreeUniquePtr<std::byte[]> memory_;
  };

  static TensorView rows(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
    TensorView view = tensor;
    view.data = view.at(0, begin, 0);
    view.tokens = end - begin;
    return view;
  }
};

}  // namespace orrery::test
