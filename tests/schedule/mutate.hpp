// Damage to good programs, of every kind that comes to mind.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "orrery/schedule.hpp"
#include "support/problem.hpp"

namespace orrery::test {

using Programs = std::vector<RankProgram>;

// Whose programs are damaged.
inline AttentionProblem problem_to_damage(const char* mask) {
  return problem_of(mask, 24, {2, 2, 4});
}

inline Slice* any_slice(Step& step, std::mt19937& random) {
  std::vector<Slice*> slices;
  if (auto* exchange = std::get_if<Exchange>(&step)) {
    for (Transfer& t : exchange->sends) slices.push_back(&t.slice);
    for (Transfer& t : exchange->receives) slices.push_back(&t.slice);
  }
  if (Attending* s = attending(step)) {
    slices = {&s->query, &s->key_value, &s->owned};
    if (s->results.given()) slices.push_back(&s->results);
  }
  if (auto* s = std::get_if<AttendBackward>(&step)) {
    for (Slice* rows : {&s->grad_output, &s->output, &s->delta, &s->grad_query}) slices.push_back(rows);
  }
  if (auto* s = std::get_if<Apply>(&step)) {
    for (Slice& operand : s->operands) {
      if (operand.given()) slices.push_back(&operand);
    }
  }
  return slices.empty() ? nullptr : slices[random() % slices.size()];
}

// Damages one step of one rank; false when this kind of damage does not apply there.
inline bool mutate(Programs& programs, std::mt19937& random) {
  RankProgram& program = programs[random() % programs.size()];
  auto& steps = program.steps;
  const std::size_t i = random() % steps.size(), j = random() % steps.size();
  const auto at = [&](std::size_t index) { return steps.begin() + static_cast<std::ptrdiff_t>(index); };
  switch (random() % 8) {
    case 0:
      steps.erase(at(i));
      return true;
    case 1:
      steps.insert(at(j), Step(steps[i]));
      return true;
    case 2:
      std::swap(steps[i], steps[j]);
      return i != j;
    case 3: {  // wrong peer
      auto* exchange = std::get_if<Exchange>(&steps[i]);
      if (exchange == nullptr) return false;
      auto& list = random() % 2 == 0 ? exchange->sends : exchange->receives;
      if (list.empty()) return false;
      int& peer = list[random() % list.size()].peer;
      peer = (peer + 1) % program.world_size;
      return peer != program.rank;
    }
    case 4: {  // wrong span
      Attending* attend = attending(steps[i]);
      if (attend == nullptr) return false;
      auto& spans = random() % 2 ? attend->query_spans : attend->key_spans;
      Span& span = spans[random() % spans.size()];
      span.begin = std::max<std::int64_t>(0, span.begin + (random() % 2 ? 1 : -1));
      return span.last() < 24;
    }
    case 5: {  // wrong rows
      Slice* slice = any_slice(steps[i], random);
      if (slice == nullptr) return false;
      slice->token_begin += random() % 2 ? 1 : -1;
      return true;
    }
    case 6: {  // wrong fusion
      if (Apply* delta = applying(steps[i], Operation::delta)) {
        delta->at("cleared") = {};
        return true;
      }
      Attending* attend = attending(steps[i]);
      if (attend == nullptr) return false;
      if (random() % 2 == 0) {
        attend->begins = !attend->begins;
        return true;
      }
      Slice& results = attend->results;
      if (!results.given()) return false;
      results = {};
      return true;
    }
    default: {  // wrong buffer
      Slice* slice = any_slice(steps[i], random);
      if (slice == nullptr) return false;
      slice->buffer = static_cast<int>(random() % program.buffers.size());
      return true;
    }
  }
}

}  // namespace orrery::test
