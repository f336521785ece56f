#include "orrery/check.hpp"

#include <algorithm>

#include "backend/coverage/concurrency.hpp"
#include "backend/coverage/coverage_world.hpp"
#include "backend/coverage/judge.hpp"
#include "orrery/error.hpp"

namespace orrery {

std::string_view to_string(Fault fault) {
  switch (fault) {
    case Fault::deadlock:
      return "deadlock";
    case Fault::mismatch:
      return "mismatch";
    case Fault::hazard:
      return "hazard";
    case Fault::unwritten:
      return "unwritten";
    case Fault::wrong:
      return "wrong";
    case Fault::missing:
      return "missing";
    case Fault::repeated:
      return "repeated";
    case Fault::needless:
      return "needless";
  }
  return "?";
}

std::string to_text(const Finding& f) {
  std::string where = concat(to_string(f.fault), ": ", to_string(f.pass), " rank ", f.rank);
  if (f.step >= 0) where += concat(" step ", f.step);
  if (f.fused) where += " (fused)";
  return where + ": " + f.message;
}

namespace {

using coverage::Context;
using coverage::CoverageWorld;
using coverage::Findings;
using coverage::Lineage;

// Structural faults are findings too, and end the proof.
bool well_formed(const AttentionProblem& problem, const std::vector<RankProgram>& programs, Findings& findings) {
  for (std::size_t rank = 0; rank < programs.size(); ++rank) {
    const RankProgram& p = programs[rank];
    if (p.rank != static_cast<int>(rank) || p.world_size != static_cast<int>(programs.size())) {
      findings.add({Fault::wrong, p.pass, p.rank, -1, "is not the program of its rank"});
      return false;
    }
    if (p.lanes != programs.front().lanes) {
      const int theirs = programs.front().lanes;
      findings.add({Fault::wrong, p.pass, p.rank, -1, concat("states ", p.lanes, " lanes where rank 0 has ", theirs)});
      return false;
    }
    const auto same_mask = [](const Mask& a, const Mask& b) { return a.text() == b.text(); };
    if (!std::equal(p.masks.begin(), p.masks.end(), programs[0].masks.begin(), programs[0].masks.end(), same_mask)) {
      findings.add({Fault::wrong, p.pass, p.rank, -1, "has other masks than rank 0"});
      return false;
    }
    try {
      validate(p, problem);
    } catch (const Error& error) {
      findings.add({Fault::wrong, p.pass, p.rank, -1, error.what()});
      return false;
    }
  }
  return true;
}

// Whether what the backends wait for keeps apart what must not overlap in time.
void find_hazards(const std::vector<RankProgram>& programs, Findings& findings) {
  for (const RankProgram& p : programs) {
    for (const coverage::Hazard& h : coverage::hazards(p, Dependencies(p))) {
      findings.add({Fault::hazard, p.pass, p.rank, h.step,
                    concat(to_text(p, h.step), ": touches ", to_text(p, h.slice), " while step ", h.other,
                           " may still be at work on it")});
    }
  }
}

}  // namespace

std::vector<Finding> check(const AttentionProblem& problem, const Layout& layout,
                           const std::vector<RankProgram>& forward, const std::vector<RankProgram>& backward,
                           const CheckOptions& options) {
  Findings findings(options.at_most);
  Lineage lineage;
  Context context{problem, {}, findings, lineage};
  const int world_size = layout.world_size();
  for (int rank = 0; rank < world_size; ++rank) context.shards.emplace_back(layout.shard(rank));
  ORRERY_CHECK(static_cast<int>(forward.size()) == world_size, "programs for ", forward.size(), " of ", world_size);
  ORRERY_CHECK(backward.empty() || backward.size() == forward.size(), "backward programs for ", backward.size());
  if (!well_formed(problem, forward, findings) || !well_formed(problem, backward, findings)) return findings.take();
  find_hazards(forward, findings);
  find_hazards(backward, findings);

  std::vector<const RankProgram*> programs;
  programs.reserve(forward.size() + backward.size());
  CoverageWorld first(context, forward);
  for (const RankProgram& p : forward) programs.push_back(&p);
  bool complete = first.run();
  for (int rank = 0; complete && rank < world_size; ++rank) judge_results(context, first.rank(rank));
  if (complete && !backward.empty()) {
    CoverageWorld second(context, backward);
    for (const RankProgram& p : backward) programs.push_back(&p);
    for (int rank = 0; rank < world_size; ++rank) second.rank(rank).inherit(first.rank(rank));
    complete = second.run();
    for (int rank = 0; complete && rank < world_size; ++rank) judge_results(context, second.rank(rank));
  } else if (complete) {
    for (int rank = 0; rank < world_size; ++rank) keep_as_results(context, first.rank(rank));
  }
  if (complete && options.needless) judge_needless(context, programs, world_size);
  return findings.take();
}

std::vector<Finding> check(const Plan& plan, const CheckOptions& options) {
  std::vector<RankProgram> forward, backward;
  for (int rank = 0; rank < plan.topology.world_size; ++rank) {
    forward.push_back(plan.program(rank, Pass::forward));
    if (plan.options.backward) backward.push_back(plan.program(rank, Pass::backward));
  }
  std::vector<Finding> findings;
  if (options.planned) findings = check(plan.problem, plan.layout, forward, backward, options);
  if (!options.fused || findings.size() >= options.at_most) return findings;

  for (std::vector<RankProgram>* programs : {&forward, &backward}) {
    for (RankProgram& program : *programs) program = fuse(program);
  }
  for (Finding& finding : check(plan.problem, plan.layout, forward, backward, options)) {
    if (findings.size() == options.at_most) break;
    finding.fused = true;
    findings.push_back(std::move(finding));
  }
  return findings;
}

}  // namespace orrery
