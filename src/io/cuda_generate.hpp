// The part of generate() that a build without CUDA has to answer for as well.
#pragma once

#include <span>

#include "io/philox.hpp"
#include "orrery/generate.hpp"
#include "orrery/mask.hpp"
#include "orrery/tensor.hpp"

namespace orrery::io {

// As generate(), on the CUDA device of that index; the arguments have been checked. Returns when the tensor is filled.
void cuda_generate(const TensorView& into, Generated tensor, Recipe recipe, PhiloxKey key, float scale,
                   std::span<const Span> positions, int device);

}  // namespace orrery::io
