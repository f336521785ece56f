// Shares of tensors that lie on a CUDA device. Samples are sent there with the rows they visit, one call of a kernel
// takes all of them, and only their shares come back. This waits for the device at every call: verification is not
// timed. All is put on the legacy default stream, in whose order copies and kernels run.
#include "device/stream.hpp"
#include "kernels/cuda/verify.hpp"
#include "orrery/device.hpp"
#include "orrery/error.hpp"
#include "verify/rows.hpp"
#include "verify/shares.hpp"

namespace orrery {
namespace {

namespace cuda = kernels::cuda;

constexpr device::StreamHandle kDefaultStream = nullptr;

// An array on the device, which grows as needed and keeps nothing when it does.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(Device device) : device_(device) {}

  // Room for `count`, of any content.
  T* room(std::size_t count) {
    if (memory_.size() < count * sizeof(T)) {
      memory_ = {};  // first, so that both need not fit
      memory_ = DeviceMemory(device_, count * sizeof(T), "verification");
    }
    return data();
  }
  const T* send(std::span<const T> values) {
    room(values.size());
    copy_bytes(memory_.data(), values.data(), values.size_bytes());
    return data();
  }
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }

 private:
  Device device_;
  DeviceMemory memory_;
};

Doubles fetch(const double* from, std::size_t count) {
  Doubles values(count);
  copy_bytes(values.data(), from, count * sizeof(double));
  return values;
}

// What the samples of one call visit, as it is gathered on the host.
struct Visited {
  std::vector<cuda::Visit> visits;
  std::vector<cuda::RowRange> ranges;

  void add(std::int64_t batch, int head, int head_count, const std::vector<Range>& rows) {
    cuda::Visit visit = {batch, 0, head, head_count, static_cast<std::int32_t>(ranges.size()), 0};
    for (const Range& range : rows) {
      ranges.push_back({range.begin, range.end});
      visit.rows += range.size();
    }
    visit.last_range = static_cast<std::int32_t>(ranges.size());
    visits.push_back(visit);
  }
};

class CudaShares : public Shares {
 public:
  CudaShares(const Plan& plan, int rank, const AttentionTensors& tensors, int device)
      : plan_(plan),
        tensors_(tensors),
        device_{DeviceKind::cuda, device},
        shard_(plan.layout.shard(rank)),
        rows_(static_cast<std::size_t>(plan.problem.batch * plan.problem.heads * plan.layout.tokens(rank))),
        dim_(static_cast<std::size_t>(plan.problem.head_dim)) {
    synchronize(device_);  // the tensors may have been written on other streams
  }

  std::vector<std::int64_t> nonfinite(const TensorView& tensor) override {
    const auto count = static_cast<std::size_t>(tensor.batch * tensor.heads * tensor.tokens);
    if (count == 0) return {};
    const device::DeviceGuard guard(device_.index);
    std::uint8_t* const on_device = flags_.room(count);
    cuda::nonfinite_rows(tensor, on_device, kDefaultStream);
    std::vector<std::uint8_t> flags(count);
    copy_bytes(flags.data(), on_device, count);
    std::vector<std::int64_t> rows;
    for (std::size_t row = 0; row < count; ++row) {
      if (flags[row] != 0) rows.push_back(static_cast<std::int64_t>(row));
    }
    return rows;
  }

  Doubles load(std::span<const OwnRow> rows, std::span<const TensorView* const> tensors) override {
    std::vector<cuda::RowPlace> places;
    for (const OwnRow& row : rows) places.push_back({row.batch, row.token, row.head});
    std::int64_t width = 0;
    for (const TensorView* tensor : tensors) width += tensor->width;
    const std::size_t count = rows.size() * static_cast<std::size_t>(width);
    if (count == 0) return {};

    const device::DeviceGuard guard(device_.index);
    const cuda::RowPlace* at = places_.send(places);
    double* into = results_.room(count);
    std::int64_t column = 0;
    for (const TensorView* tensor : tensors) {
      cuda::load_rows(*tensor, at, static_cast<int>(rows.size()), into + column, width, kDefaultStream);
      column += tensor->width;
    }
    return fetch(into, count);
  }

  Doubles softmax(std::span<const Sample> samples, std::span<const double> query) override {
    const device::DeviceGuard guard(device_.index);
    cuda::SoftmaxShares call = {};
    call.visits = keys_of(samples);
    call.query = first_.send(query);
    call.key = tensors_.key;
    call.value = tensors_.value;
    call.scale = plan_.problem.effective_scale();
    call.parts = parts_.room(cuda::visit_parts(samples.size(), dim_));
    const std::size_t count = samples.size() * softmax_width(dim_);
    call.shares = results_.room(count);
    cuda::softmax_shares(call, kDefaultStream);
    return fetch(call.shares, count);
  }

  Doubles grad_query(std::span<const Sample> samples, std::span<const double> query, std::span<const double> grad_out,
                     std::span<const double> lse, std::span<const double> delta) override {
    const device::DeviceGuard guard(device_.index);
    cuda::GradientShares call = {};
    call.visits = keys_of(samples);
    call.x = tensors_.key;
    call.y = tensors_.value;
    call.lse = sample_lse_.send(lse);
    call.delta = sample_delta_.send(delta);
    call.of_visited = false;
    const Doubles all = gradients(call, query, grad_out);
    Doubles sums;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto of = std::span(all).subspan(i * cuda::gradient_sums(dim_), cuda::gradient_sums(dim_));
      sums.insert(sums.end(), of.begin(), of.begin() + static_cast<std::ptrdiff_t>(dim_));
      for (const std::size_t size : {0, 1, 3}) sums.push_back(of[2 * dim_ + size]);
    }
    return sums;
  }

  void use_sums_of_run() override {
    const device::DeviceGuard guard(device_.index);
    cuda::row_sums({tensors_.lse, tensors_.out, tensors_.grad_out, lse_.room(rows_), delta_.room(rows_)},
                   kDefaultStream);
  }

  void use_sums(RowSums sums) override {
    ORRERY_CHECK(sums.lse.size() == rows_ && sums.delta.size() == rows_, sums.lse.size(), " and ", sums.delta.size(),
                 " sums of ", rows_, " rows");
    const device::DeviceGuard guard(device_.index);
    lse_.send(sums.lse);
    delta_.send(sums.delta);
  }

  Doubles grad_key_value(std::span<const Sample> samples, std::span<const double> key,
                         std::span<const double> value) override {
    const int group = plan_.problem.group();
    Visited visited;
    for (const Sample& s : samples) {
      visited.add(s.batch, s.head * group, group, rows_seeing(plan_.problem.mask, s.position, shard_));
    }
    const device::DeviceGuard guard(device_.index);
    cuda::GradientShares call = {};
    call.visits = send(visited);
    call.x = tensors_.query;
    call.y = tensors_.grad_out;
    call.lse = lse_.data();
    call.delta = delta_.data();
    call.of_visited = true;
    const Doubles all = gradients(call, key, value);
    Doubles sums;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto of = std::span(all).subspan(i * cuda::gradient_sums(dim_), cuda::gradient_sums(dim_));
      sums.insert(sums.end(), of.begin(), of.begin() + static_cast<std::ptrdiff_t>(2 * dim_));
      for (const std::size_t size : {1, 2, 3, 4}) sums.push_back(of[2 * dim_ + size]);
    }
    return sums;
  }

 private:
  cuda::Visits send(const Visited& visited) {
    return {visits_.send(visited.visits), ranges_.send(visited.ranges), static_cast<int>(visited.visits.size())};
  }

  cuda::Visits keys_of(std::span<const Sample> queries) {
    const int group = plan_.problem.group();
    Visited visited;
    for (const Sample& s : queries) {
      visited.add(s.batch, s.head / group, 1, rows_seen(plan_.problem.mask, s.position, shard_));
    }
    return send(visited);
  }

  // Fills in the rest of the call. [samples, cuda::gradient_sums(head_dim)]
  Doubles gradients(cuda::GradientShares& call, std::span<const double> a, std::span<const double> b) {
    const auto samples = static_cast<std::size_t>(call.visits.samples);
    call.a = first_.send(a);
    call.b = second_.send(b);
    call.scale = plan_.problem.effective_scale();
    call.parts = parts_.room(cuda::visit_parts(samples, dim_));
    call.sums = results_.room(samples * cuda::gradient_sums(dim_));
    cuda::gradient_shares(call, kDefaultStream);
    return fetch(call.sums, samples * cuda::gradient_sums(dim_));
  }

  const Plan& plan_;
  const AttentionTensors& tensors_;
  Device device_;
  RowIndex shard_;
  std::size_t rows_;  // batch * heads * tokens
  std::size_t dim_;
  DeviceArray<cuda::Visit> visits_{device_};
  DeviceArray<cuda::RowRange> ranges_{device_};
  DeviceArray<cuda::RowPlace> places_{device_};
  DeviceArray<std::uint8_t> flags_{device_};
  DeviceArray<double> first_{device_}, second_{device_}, sample_lse_{device_}, sample_delta_{device_};
  DeviceArray<double> parts_{device_}, results_{device_}, lse_{device_}, delta_{device_};
};

}  // namespace

std::unique_ptr<Shares> make_cuda_shares(const Plan& plan, int rank, const AttentionTensors& tensors, int device) {
  return std::make_unique<CudaShares>(plan, rank, tensors, device);
}

}  // namespace orrery
