#include <utility>

#include "orrery/error.hpp"
#include "orrery/schedule.hpp"

namespace orrery {

const Slice& Apply::at(std::string_view operand) const {
  const std::size_t index = row_of(operation).index_of(operand);
  ORRERY_CHECK(index < row_of(operation).operands().size(), to_string(operation), " has no operand `", operand, "`");
  return operands[index];
}

Slice& Apply::at(std::string_view operand) {
  return const_cast<Slice&>(std::as_const(*this).at(operand));
}

std::string_view name_of(const Step& step) {
  constexpr std::string_view kNames[] = {"exchange", "attend", "attend_backward"};
  const auto* apply = std::get_if<Apply>(&step);
  return apply != nullptr ? to_string(apply->operation) : kNames[step.index()];
}

const Attending* attending(const Step& step) {
  if (const auto* forward = std::get_if<Attend>(&step)) return forward;
  return std::get_if<AttendBackward>(&step);
}

Attending* attending(Step& step) {
  return const_cast<Attending*>(attending(std::as_const(step)));
}

const Apply* applying(const Step& step, Operation operation) {
  const auto* apply = std::get_if<Apply>(&step);
  return apply != nullptr && apply->operation == operation ? apply : nullptr;
}

Apply* applying(Step& step, Operation operation) {
  return const_cast<Apply*>(applying(std::as_const(step), operation));
}

}  // namespace orrery
