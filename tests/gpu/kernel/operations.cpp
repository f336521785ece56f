// Every operation does on a device what it does on a host: for each row of the table, operands of its kinds, full of
// the same numbers.
#include <cmath>
#include <deque>
#include <numbers>

#include "gpu/kernel/device_tensor.hpp"
#include "kernels/rowwise.hpp"
#include "orrery/schedule.hpp"
#include "support/catch.hpp"

namespace orrery::test {
namespace {

// The operands of one operation, each of the first kind that its row allows.
struct Example {
  kernels::Operands on_host, on_device;
  std::deque<Tensor> host;
  std::deque<DeviceTensor> device;
  std::vector<std::string> names;

  Example(const OperationRow& row, std::int64_t width, std::int64_t padding)
      : on_host{row.operation, {}, {}}, on_device{row.operation, {}, {}} {
    for (std::size_t i = 0; i < row.operands().size(); ++i) {
      int kind = 0;
      while (!row.operands()[i].kinds.has(static_cast<BufferKind>(kind))) ++kind;
      Buffer buffer;
      buffer.kind = static_cast<BufferKind>(kind);
      buffer.width = width;
      on_host.given[i] = on_device.given[i] = true;
      on_host.list[i].kind = on_device.list[i].kind = buffer.kind;
      std::size_t at = 0;
      for (const Component& c : components(buffer)) {
        Tensor& tensor = host.emplace_back(Dtype::fp32, 2, 5, 3, c.width, padding);
        tensor.fill([&](auto b, auto t, auto h, auto column) {
          return 0.5 +
                 static_cast<double>((5 * b + 3 * t + 7 * h + column + 11 * static_cast<std::int64_t>(i)) % 16) / 16;
        });
        names.push_back(concat(row.name, " ", row.operands()[i].name, " ", c.name));
        device.emplace_back(in_units_of(tensor, c.name, 1 / std::numbers::ln2));
        on_host.list[i].tensors[at] = tensor;
        on_device.list[i].tensors[at++] = device.back();
      }
    }
  }

  // Devices count a maximum in units of log 2.
  static Tensor in_units_of(const Tensor& tensor, std::string_view component, double unit) {
    const TensorView& view = tensor;
    Tensor other(view.dtype, view.batch, view.tokens, view.heads, view.width, view.head_stride - view.width);
    other.fill([&](auto... at) { return tensor.get(at...) * (component == "row_max" ? unit : 1.0); });
    return other;
  }
};

TEST_CASE("every operation does on a device what it does on a host") {
  ThreadPool pool(1);
  for (const OperationRow& row : kOperations) {
    for (std::int64_t width : {8, 13}) {
      for (std::int64_t padding : {std::int64_t{0}, std::int64_t{3}, kAlignedPadding}) {
        Example e(row, width, padding);
        kernels::apply(e.on_host, pool);
        kernels::apply(e.on_device, device::StreamHandle{nullptr});
        for (std::size_t i = 0; i < e.host.size(); ++i) {
          const TensorView& shape = e.host[i];
          Tensor fetched(shape.dtype, shape.batch, shape.tokens, shape.heads, shape.width, padding);
          e.device[i].fetch_into(fetched);
          REQUIRE(fetched.padding_intact());
          const bool is_max = e.names[i].ends_with("row_max");
          double worst = 0;
          e.host[i].fill([&](auto... at) {  // and stays as it is
            const double wanted = e.host[i].get(at...), got = fetched.get(at...) * (is_max ? std::numbers::ln2 : 1.0);
            if (!(std::isinf(wanted) && wanted == got)) worst = std::max(worst, std::abs(got - wanted));
            return wanted;
          });
          INFO(e.names[i] << " width " << width << " padding " << padding);
          REQUIRE(worst < 1e-5);
        }
      }
    }
  }
}

}  // namespace
}  // namespace orrery::test
