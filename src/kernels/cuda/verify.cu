// A warp takes one visited row at a time, its lanes the columns: lane l holds columns l, l + 32, l + 64, ... of every
// row. The warps of a block take a slice of a sample's rows in turn, each summing its own; the block adds these up in
// the order of the warps, and a second kernel adds the slices up in theirs.
#include <cmath>
#include <type_traits>

#include "device/check.hpp"
#include "kernels/cuda/common/elements.cuh"
#include "kernels/cuda/verify.hpp"
#include "orrery/error.hpp"

namespace orrery::kernels::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kLanes;
constexpr unsigned kWholeWarp = ~0u;

template <Dtype kDtype>
constexpr std::int64_t kBytes = size_of(kDtype);  // of an element

// A row of up to kColumns * 32 columns, over the lanes of a warp; zeros beyond its width.
template <int kColumns>
struct Row {
  double at[kColumns];
};

__device__ int lane_id() {
  return static_cast<int>(threadIdx.x) % kLanes;
}
__device__ int warp_id() {
  return static_cast<int>(threadIdx.x) / kLanes;
}

__device__ double warp_sum(double value) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kWholeWarp, value, mask);
  return value;
}

template <Dtype kDtype>
__device__ const std::byte* row_at(const TensorView& tensor, std::int64_t batch, std::int64_t token,
                                   std::int64_t head) {
  const std::int64_t element = batch * tensor.batch_stride + token * tensor.token_stride + head * tensor.head_stride;
  return static_cast<const std::byte*>(tensor.data) + element * kBytes<kDtype>;
}

template <Dtype kDtype>
__device__ double load(const std::byte* row, std::int64_t column) {
  return load_elements<1>(row + column * kBytes<kDtype>, kDtype).at[0];
}

template <Dtype kDtype, int kColumns>
__device__ Row<kColumns> load_row(const std::byte* from, int width) {
  Row<kColumns> row;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int column = i * kLanes + lane_id();
    row.at[i] = column < width ? load<kDtype>(from, column) : 0;
  }
  return row;
}

template <int kColumns>
__device__ Row<kColumns> load_sample(const double* from, int width) {
  Row<kColumns> row;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int column = i * kLanes + lane_id();
    row.at[i] = column < width ? from[column] : 0;
  }
  return row;
}

// The same on every lane.
template <int kColumns>
__device__ double dot(const Row<kColumns>& a, const Row<kColumns>& b) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) sum += a.at[i] * b.at[i];
  return warp_sum(sum);
}

template <int kColumns>
__device__ void add(Row<kColumns>& into, double factor, const Row<kColumns>& row) {
#pragma unroll
  for (int i = 0; i < kColumns; ++i) into.at[i] += factor * row.at[i];
}

// Calls body(row) for this warp's rows of this block's slice.
template <typename Body>
__device__ void for_each_row(const Visit& visit, const RowRange* ranges, const Body& body) {
  const std::int64_t slice = blockIdx.x;
  const std::int64_t begin = visit.rows * slice / kVisitSlices, end = visit.rows * (slice + 1) / kVisitSlices;
  int range = visit.first_range;
  std::int64_t before = 0;  // rows in the ranges before this one
  for (std::int64_t i = begin + warp_id(); i < end; i += kWarps) {
    std::int64_t size = ranges[range].end - ranges[range].begin;
    while (i - before >= size) {
      before += size;
      ++range;
      size = ranges[range].end - ranges[range].begin;
    }
    body(ranges[range].begin + (i - before));
  }
}

template <int kColumns>
struct SoftmaxShared {
  double weighted[kWarps][kColumns * kLanes];
  double max[kWarps], sum[kWarps], squares[kWarps], lengths[kWarps];
};

// What a softmax sums up beside its values. Those of two sets of keys are merged after both are scaled to one maximum.
struct SoftmaxSums {
  double sum = 0, squares = 0, lengths = 0;  // of weight, of |weight value|^2, of weight |key|

  __device__ void scale(double factor) {
    sum *= factor;
    squares *= factor * factor;
    lengths *= factor;
  }
  __device__ void add(double factor, double more_sum, double more_squares, double more_lengths) {
    sum += factor * more_sum;
    squares += factor * factor * more_squares;
    lengths += factor * more_lengths;
  }
};

__device__ constexpr int softmax_width(int width) {
  return width + 4;
}

// into: [head_dim + 4], written behind the values.
__device__ void store_sums(double* into, int width, double max, const SoftmaxSums& sums) {
  into[width] = max;
  into[width + 1] = sums.sum;
  into[width + 2] = sums.squares;
  into[width + 3] = sums.lengths;
}

// Parts are [samples, slices, head_dim + 4], as the shares. grid: (slices, samples)
template <Dtype kDtype, int kColumns>
__global__ void __launch_bounds__(kThreads) softmax_slice(const SoftmaxShares call) {
  __shared__ SoftmaxShared<kColumns> shared;
  const int width = static_cast<int>(call.key.width), sample = static_cast<int>(blockIdx.y);
  const Visit visit = call.visits.of[sample];
  const auto query = load_sample<kColumns>(call.query + static_cast<std::int64_t>(sample) * width, width);
  double max = -INFINITY;
  SoftmaxSums sums;
  Row<kColumns> weighted = {};
  for_each_row(visit, call.visits.ranges, [&](std::int64_t row) {
    const auto key = load_row<kDtype, kColumns>(row_at<kDtype>(call.key, visit.batch, row, visit.head), width);
    const auto value = load_row<kDtype, kColumns>(row_at<kDtype>(call.value, visit.batch, row, visit.head), width);
    const double score = call.scale * dot(query, key);
    if (score > max) {
      const double factor = exp(max - score);
      sums.scale(factor);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) weighted.at[i] *= factor;
      max = score;
    }
    const double weight = exp(score - max);
    sums.add(weight, 1, dot(value, value), sqrt(dot(key, key)));
    add(weighted, weight, value);
  });

#pragma unroll
  for (int i = 0; i < kColumns; ++i) shared.weighted[warp_id()][i * kLanes + lane_id()] = weighted.at[i];
  if (lane_id() == 0) {
    shared.max[warp_id()] = max;
    shared.sum[warp_id()] = sums.sum;
    shared.squares[warp_id()] = sums.squares;
    shared.lengths[warp_id()] = sums.lengths;
  }
  __syncthreads();
  // From here on max and sums are the block's.
  max = -INFINITY;
  sums = {};
  for (int warp = 0; warp < kWarps; ++warp) max = fmax(max, shared.max[warp]);
  double column_sum = 0;
  const int column = static_cast<int>(threadIdx.x);
  for (int warp = 0; warp < kWarps; ++warp) {
    if (shared.sum[warp] == 0) continue;
    const double factor = exp(shared.max[warp] - max);
    sums.add(factor, shared.sum[warp], shared.squares[warp], shared.lengths[warp]);
    if (column < width) column_sum += factor * shared.weighted[warp][column];
  }
  double* part = call.parts + (static_cast<std::int64_t>(sample) * kVisitSlices + blockIdx.x) * softmax_width(width);
  if (column < width) part[column] = column_sum;
  if (column == 0) store_sums(part, width, max, sums);
}

// grid: (samples)
__global__ void __launch_bounds__(kThreads) merge_softmax(const SoftmaxShares call) {
  const int width = static_cast<int>(call.key.width), column = static_cast<int>(threadIdx.x);
  const std::int64_t sample = blockIdx.x;
  const int part_width = softmax_width(width);
  const double* parts = call.parts + sample * kVisitSlices * part_width;
  double max = -INFINITY, column_sum = 0;
  SoftmaxSums sums;
  for (int slice = 0; slice < kVisitSlices; ++slice) max = fmax(max, parts[slice * part_width + width]);
  for (int slice = 0; slice < kVisitSlices; ++slice) {
    const double* part = parts + slice * part_width;
    if (part[width + 1] == 0) continue;
    const double factor = exp(part[width] - max);
    sums.add(factor, part[width + 1], part[width + 2], part[width + 3]);
    if (column < width) column_sum += factor * part[column];
  }
  double* share = call.shares + sample * part_width;
  if (column < width) share[column] = column_sum;
  if (column == 0) store_sums(share, width, max, sums);
}

constexpr int kSizes = 5;  // that a gradient sums up beside its values

template <int kColumns>
struct GradientShared {
  double sums[2][kWarps][kColumns * kLanes];
  double sizes[kSizes][kWarps];
};
static_assert(sizeof(GradientShared<8>) <= 48 * 1024, "without asking a block gets 48 KiB");

__device__ constexpr int gradient_width(int width) {
  return 2 * width + kSizes;
}

// Parts are [samples, slices, 2 * head_dim + kSizes], as the sums. grid: (slices, samples)
template <Dtype kDtype, int kColumns>
__global__ void __launch_bounds__(kThreads) gradient_slice(const GradientShares call) {
  __shared__ GradientShared<kColumns> shared;
  const int width = static_cast<int>(call.x.width), sample = static_cast<int>(blockIdx.y);
  const Visit visit = call.visits.of[sample];
  const auto a = load_sample<kColumns>(call.a + static_cast<std::int64_t>(sample) * width, width);
  const auto b = load_sample<kColumns>(call.b + static_cast<std::int64_t>(sample) * width, width);
  Row<kColumns> ds_x = {}, p_y = {};
  double sizes[kSizes] = {};
  const double bb = dot(b, b) / width, scale_squared = call.scale * call.scale;
  for_each_row(visit, call.visits.ranges, [&](std::int64_t row) {
    for (int head = visit.head; head < visit.head + visit.head_count; ++head) {
      const std::int64_t index =
          call.of_visited ? (visit.batch * call.x.heads + head) * call.x.tokens + row : std::int64_t{sample};
      const double lse = call.lse[index];
      if (lse == -INFINITY) continue;  // on all lanes alike
      const auto x = load_row<kDtype, kColumns>(row_at<kDtype>(call.x, visit.batch, row, head), width);
      const auto y = load_row<kDtype, kColumns>(row_at<kDtype>(call.y, visit.batch, row, head), width);
      const double p = exp(call.scale * dot(a, x) - lse);
      const double by = dot(b, y), delta = call.delta[index], xx = dot(x, x);
      add(ds_x, p * (by - delta) * call.scale, x);
      add(p_y, p, y);
      const double yy = dot(y, y), spread = scale_squared * (by * by + delta * delta + bb * yy);
      sizes[0] += p * sqrt(xx);
      sizes[1] += p * p * xx * spread;
      sizes[2] += p * p * yy;
      sizes[3] += xx * (spread + scale_squared);
      sizes[4] += yy;
    }
  });

#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    shared.sums[0][warp_id()][i * kLanes + lane_id()] = ds_x.at[i];
    shared.sums[1][warp_id()][i * kLanes + lane_id()] = p_y.at[i];
  }
  if (lane_id() == 0) {
    for (int i = 0; i < kSizes; ++i) shared.sizes[i][warp_id()] = sizes[i];
  }
  __syncthreads();
  double* part = call.parts + (static_cast<std::int64_t>(sample) * kVisitSlices + blockIdx.x) * gradient_width(width);
  for (int i = static_cast<int>(threadIdx.x); i < 2 * width; i += kThreads) {
    const int which = i / width, column = i % width;
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared.sums[which][warp][column];
    part[i] = sum;
  }
  if (threadIdx.x < kSizes) {
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared.sizes[threadIdx.x][warp];
    part[2 * width + threadIdx.x] = sum;
  }
}

// grid: (samples)
__global__ void __launch_bounds__(kThreads) merge_gradients(const GradientShares call) {
  const int width = static_cast<int>(call.x.width);
  const std::int64_t sample = blockIdx.x;
  const int part_width = gradient_width(width);
  const double* parts = call.parts + sample * kVisitSlices * part_width;
  for (int i = static_cast<int>(threadIdx.x); i < part_width; i += kThreads) {
    double sum = 0;
    for (int slice = 0; slice < kVisitSlices; ++slice) sum += parts[slice * part_width + i];
    call.sums[sample * part_width + i] = sum;
  }
}

// A warp takes one token, and all its heads in turn.
template <Dtype kDtype>
__global__ void __launch_bounds__(kThreads) sum_rows(const RowSums call) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_id();
  if (token >= call.out.tokens) return;
  for (std::int64_t batch = 0; batch < call.out.batch; ++batch) {
    for (std::int64_t head = 0; head < call.out.heads; ++head) {
      const std::byte* out = row_at<kDtype>(call.out, batch, token, head);
      const std::byte* grad_out = row_at<kDtype>(call.grad_out, batch, token, head);
      double delta = 0;
      for (int c = lane_id(); c < call.out.width; c += kLanes)
        delta += load<kDtype>(out, c) * load<kDtype>(grad_out, c);
      delta = warp_sum(delta);
      if (lane_id() != 0) continue;
      const std::int64_t index = (batch * call.out.heads + head) * call.out.tokens + token;
      call.lse_sums[index] = load<Dtype::fp32>(row_at<Dtype::fp32>(call.lse, batch, token, head), 0);
      call.delta_sums[index] = delta;
    }
  }
}

// A warp takes one row.
template <Dtype kDtype>
__global__ void __launch_bounds__(kThreads) flag_rows(const TensorView tensor, std::uint8_t* flags) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_id();
  if (row >= tensor.batch * tensor.heads * tensor.tokens) return;
  const std::int64_t token = row % tensor.tokens, head = row / tensor.tokens % tensor.heads;
  const std::byte* at = row_at<kDtype>(tensor, row / tensor.tokens / tensor.heads, token, head);
  bool finite = true;
  for (std::int64_t c = lane_id(); c < tensor.width; c += kLanes) finite = finite && isfinite(load<kDtype>(at, c));
  const bool all = __all_sync(kWholeWarp, finite);
  if (lane_id() == 0) flags[row] = all ? 0 : 1;
}

// grid: (rows)
template <Dtype kDtype>
__global__ void gather_rows(TensorView from, const RowPlace* places, double* into, std::int64_t stride) {
  const RowPlace place = places[blockIdx.x];
  const std::byte* row = row_at<kDtype>(from, place.batch, place.token, place.head);
  for (std::int64_t c = threadIdx.x; c < from.width; c += blockDim.x)
    into[blockIdx.x * stride + c] = load<kDtype>(row, c);
}

template <Dtype kDtype>
using DtypeConstant = std::integral_constant<Dtype, kDtype>;

template <typename Visitor>
void with_dtype(Dtype dtype, const Visitor& visitor) {
  switch (dtype) {
    case Dtype::fp32:
      return visitor(DtypeConstant<Dtype::fp32>());
    case Dtype::bf16:
      return visitor(DtypeConstant<Dtype::bf16>());
    case Dtype::fp16:
      return visitor(DtypeConstant<Dtype::fp16>());
  }
}

// With the number of columns that a lane holds.
template <typename Visitor>
void with_columns(std::int64_t width, const Visitor& visitor) {
  ORRERY_CHECK(width <= kThreads, "rows of ", width, " columns");
  if (width <= 2 * kLanes) return visitor(std::integral_constant<int, 2>());
  if (width <= 4 * kLanes) return visitor(std::integral_constant<int, 4>());
  return visitor(std::integral_constant<int, 8>());
}
static_assert(kThreads == 8 * kLanes, "the widest row has a column for every thread");

dim3 slices_of(const Visits& visits) {
  ORRERY_CHECK(visits.samples <= kMostVisits, visits.samples, " samples");
  return {kVisitSlices, static_cast<unsigned>(visits.samples)};
}

}  // namespace

void softmax_shares(const SoftmaxShares& call, device::StreamHandle stream) {
  if (call.visits.samples == 0) return;
  const dim3 grid = slices_of(call.visits);
  with_dtype(call.key.dtype, [&](auto dtype) {
    with_columns(call.key.width, [&](auto columns) {
      softmax_slice<decltype(dtype)::value, decltype(columns)::value><<<grid, kThreads, 0, stream>>>(call);
    });
  });
  ORRERY_CUDA_CHECK(cudaGetLastError());
  merge_softmax<<<grid.y, kThreads, 0, stream>>>(call);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

void gradient_shares(const GradientShares& call, device::StreamHandle stream) {
  if (call.visits.samples == 0) return;
  const dim3 grid = slices_of(call.visits);
  with_dtype(call.x.dtype, [&](auto dtype) {
    with_columns(call.x.width, [&](auto columns) {
      gradient_slice<decltype(dtype)::value, decltype(columns)::value><<<grid, kThreads, 0, stream>>>(call);
    });
  });
  ORRERY_CUDA_CHECK(cudaGetLastError());
  merge_gradients<<<grid.y, kThreads, 0, stream>>>(call);
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

void row_sums(const RowSums& call, device::StreamHandle stream) {
  if (call.out.tokens == 0) return;
  const auto blocks = static_cast<unsigned>((call.out.tokens + kWarps - 1) / kWarps);
  with_dtype(call.out.dtype,
             [&](auto dtype) { sum_rows<decltype(dtype)::value><<<blocks, kThreads, 0, stream>>>(call); });
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

void nonfinite_rows(const TensorView& tensor, std::uint8_t* flags, device::StreamHandle stream) {
  const std::int64_t rows = tensor.batch * tensor.heads * tensor.tokens;
  if (rows == 0) return;
  const auto blocks = static_cast<unsigned>((rows + kWarps - 1) / kWarps);
  with_dtype(tensor.dtype,
             [&](auto dtype) { flag_rows<decltype(dtype)::value><<<blocks, kThreads, 0, stream>>>(tensor, flags); });
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

void load_rows(const TensorView& from, const RowPlace* places, int count, double* into, std::int64_t stride,
               device::StreamHandle stream) {
  if (count == 0) return;
  with_dtype(from.dtype, [&](auto dtype) {
    gather_rows<decltype(dtype)::value>
        <<<static_cast<unsigned>(count), 2 * kLanes, 0, stream>>>(from, places, into, stride);
  });
  ORRERY_CUDA_CHECK(cudaGetLastError());
}

}  // namespace orrery::kernels::cuda
