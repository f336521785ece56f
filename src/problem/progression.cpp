#include "progression.hpp"

namespace orrery {

Wide floor_sum(std::int64_t count, std::int64_t step, std::int64_t start, std::int64_t divisor) {
  // The sum counts the lattice points under a line. Whole multiples of the divisor come out as rectangles and a
  // triangle; what is left has a slope below 1, and seen along the other axis it is the same question with smaller
  // numbers.
  Wide sum = 0;
  while (count > 0) {
    sum += Wide{count} * (start / divisor) + Wide{count} * (count - 1) / 2 * (step / divisor);
    start %= divisor;
    step %= divisor;
    const std::int64_t top = step * count + start;
    if (top < divisor) break;
    count = top / divisor;
    start = top % divisor;
    const std::int64_t old_step = step;
    step = divisor;
    divisor = old_step;
  }
  return sum;
}

std::int64_t first_residue(std::int64_t step, std::int64_t modulus, std::int64_t low, std::int64_t high) {
  if (step == 0) return -1;
  const std::int64_t first = ceil_div(low, step);
  if (Wide{first} * step <= high) return first;
  // No multiple of step lies in [low, high]. One lies in [low + modulus * turns, high + modulus * turns] just when
  // modulus * turns mod step falls between -high and -low mod step: the same question, one step of Euclid further.
  const std::int64_t turns = first_residue(modulus % step, step, modulo(-high, step), modulo(-low, step));
  if (turns < 0) return -1;
  const Wide target = Wide{modulus} * turns + low;
  return static_cast<std::int64_t>((target + step - 1) / step);
}

}  // namespace orrery
