// A build without CUDA: nobody can have a tensor on a device.
#include "io/cuda_generate.hpp"
#include "orrery/error.hpp"

namespace orrery::io {

void cuda_generate(const TensorView&, Generated, Recipe, PhiloxKey, float, std::span<const Span>, int) {
  refuse("generate: this build has no CUDA backend; configure with the preset cuda");
}

}  // namespace orrery::io
