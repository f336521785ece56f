// Inputs from counters: the value of an element depends only on (seed, tensor, batch, position, head, column), so any
// rank, of any world, on any device, makes the same tensor, and a check can remake any row of it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "orrery/device.hpp"
#include "orrery/mask.hpp"
#include "orrery/tensor.hpp"

namespace orrery {

// How the values are made. normal: nearly normal, by the seed. counting: queries of 0, and signs that tell bits of a
// position, for which attention has a closed form and out is exact whatever the mask (src/io/counting.hpp); the seed
// means nothing.
enum class Recipe { normal, counting };
Recipe parse_recipe(std::string_view text);
std::string_view to_string(Recipe recipe);

enum class Generated : std::uint32_t { query = 1, key = 2, value = 3, grad_out = 4 };

// Fills the rows at `positions` (concatenated, in order) with values of mean 0 and variance 1 that are nearly normal:
// the sum of four 16-bit uniforms from Philox4x32-10 (Salmon et al., 2011), exact in integers, times one float
// constant, rounded to the dtype. src/io/generate.cpp opens with the exact recipe. Refused: positions below 0 or not as
// many as tokens, batch above 2^32, heads above 2^16, width above 2^17. `into` lies on `device`, whose bits do not
// depend on which it is; returns when the tensor is filled.
void generate(const TensorView& into, Generated tensor, std::uint64_t seed, std::span<const Span> positions,
              Device device = {}, Recipe recipe = Recipe::normal);

// One element of the normal recipe, before rounding to a dtype.
float generated_value(Generated tensor, std::uint64_t seed, std::int64_t batch, std::int64_t position,
                      std::int64_t head, std::int64_t column);
// One element of the counting recipe, exact in every dtype; `width` is that of the tensor.
float counting_value(Generated tensor, std::int64_t batch, std::int64_t position, std::int64_t head,
                     std::int64_t column, std::int64_t width);

}  // namespace orrery
