// Damage to good programs, of every kind that comes to mind.
#pragma once

#include <algorithm>
#include <random>
#include <type_traits>
#include <vector>

#include "orrery/schedule.hpp"

namespace orrery::test {

using Programs = std::vector<RankProgram>;

inline Slice* any_slice(Step& step, std::mt19937& random) {
  std::vector<Slice*> slices;
  std::visit(
      [&](auto& s) {
        using S = std::decay_t<decltype(s)>;
        if constexpr (std::is_same_v<S, Exchange>) {
          for (Transfer& t : s.sends) slices.push_back(&t.slice);
          for (Transfer& t : s.receives) slices.push_back(&t.slice);
        } else if constexpr (std::is_same_v<S, Attend>) {
          slices = {&s.query, &s.key_value, &s.state};
          if (s.output.given()) slices.push_back(&s.output);
        } else if constexpr (std::is_same_v<S, AttendBackward>) {
          slices = {&s.query, &s.key_value, &s.grad_output, &s.output, &s.delta, &s.grad_query, &s.grad_key_value};
          if (s.result.given()) slices.push_back(&s.result);
        } else if constexpr (std::is_same_v<S, Clear>) {
          slices = {&s.into};
        } else if constexpr (std::is_same_v<S, Compose>) {
          slices = {&s.into, &s.earlier};
        } else if constexpr (std::is_same_v<S, Copy>) {
          slices = {&s.into, &s.from};
        } else if constexpr (std::is_same_v<S, Normalize>) {
          slices = {&s.into, &s.state};
        }
      },
      step);
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
      auto* attend = std::get_if<Attend>(&steps[i]);
      auto* backward = std::get_if<AttendBackward>(&steps[i]);
      if (attend == nullptr && backward == nullptr) return false;
      auto& spans = attend ? (random() % 2 ? attend->query_spans : attend->key_spans)
                           : (random() % 2 ? backward->query_spans : backward->key_spans);
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
      auto* attend = std::get_if<Attend>(&steps[i]);
      auto* backward = std::get_if<AttendBackward>(&steps[i]);
      if (auto* delta = std::get_if<Delta>(&steps[i])) delta->cleared = {};
      if (attend == nullptr && backward == nullptr) return std::holds_alternative<Delta>(steps[i]);
      if (random() % 2 == 0) {
        bool& begins = attend ? attend->begins : backward->begins;
        begins = !begins;
        return true;
      }
      Slice& results = attend ? attend->output : backward->result;
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
