#include "backend/cuda/step_tables.hpp"

#include "backend/memory/key_runs.hpp"

namespace orrery::cuda {
namespace {

using kernels::cuda::PieceRows;
using kernels::cuda::SpanRows;

template <typename Row>
std::size_t append(std::vector<std::byte>& block, std::span<const Row> rows) {
  static_assert(sizeof(Row) % 8 == 0, "rows follow each other without gaps, each aligned to its 64-bit members");
  const std::size_t offset = block.size();
  const auto bytes = std::as_bytes(rows);
  block.insert(block.end(), bytes.begin(), bytes.end());
  return offset;
}

}  // namespace

StepTables::StepTables(const AttentionProblem& problem, const RankProgram& program)
    : attended_(program.steps.size()), query_tokens_(program.steps.size()) {
  for (int mask = 0; mask <= static_cast<int>(program.masks.size()); ++mask) add(mask_of(program, problem, mask));
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    if (const Attending* s = attending(program.steps[i])) add(i, *s);
  }
}

void StepTables::add(const Mask& mask) {
  std::vector<PieceRows> pieces;
  for (const MaskPiece& p : mask.pieces()) {
    PieceRows row{p.end, {}, {}};
    const Boundary* boundaries[] = {&p.keys_begin, &p.keys_end, &p.sinks_begin, &p.sinks_end};
    for (int i = 0; i < 4; ++i) {
      row.offsets[i] = boundaries[i]->offset;
      row.slopes[i] = boundaries[i]->slope;
    }
    pieces.push_back(row);
  }
  pieces_.push_back({append<PieceRows>(block_, pieces), static_cast<int>(pieces.size())});
}

void StepTables::add(std::size_t step, const Attending& s) {
  Attended& attended = attended_[step];
  attended.mask_free = s.mask_free;
  attended.mask = s.mask;
  query_tokens_[step] = token_count(s.query_spans);
  if (s.mask_free) {  // one run: the order of positions does not matter
    attended.runs.push_back({0, token_count(s.key_spans), 0, 0});
    return;
  }
  const Stored queries = store(s.query_spans);
  attended.query_spans = queries.offset;
  attended.query_span_count = queries.count;
  for (const KeyRun& run : key_runs(s.key_spans)) {
    const Stored keys = store(run.keys.spans());
    attended.runs.push_back({run.begin, run.keys.rows(), keys.offset, keys.count});
  }
  if (attended.runs.empty()) attended.runs.push_back({});  // its rows may still be to begin or to finish
}

StepTables::Stored StepTables::store(std::span<const Span> spans) {
  std::vector<SpanRows> rows;
  std::int64_t row = 0;
  for (const Span& s : spans) {
    if (s.count == 0) continue;
    rows.push_back({s.begin, s.count, s.stride, row});
    row += s.count;
  }
  const auto bytes = std::as_bytes(std::span(rows));
  const auto [known, fresh] =
      known_.try_emplace(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  if (fresh) known->second = {append<SpanRows>(block_, rows), static_cast<int>(rows.size())};
  return known->second;
}

kernels::cuda::FillKeyRanges StepTables::fill(int step, const Run& run, const std::byte* block) const {
  const Attended& attended = of(step);
  kernels::cuda::FillKeyRanges call{};
  call.query_spans = reinterpret_cast<const SpanRows*>(block + attended.query_spans);
  call.query_span_count = attended.query_span_count;
  call.query_len = query_tokens_[static_cast<std::size_t>(step)];
  call.key_spans = reinterpret_cast<const SpanRows*>(block + run.key_spans);
  call.key_span_count = run.key_span_count;
  const Stored& pieces = pieces_[static_cast<std::size_t>(attended.mask)];
  call.pieces = reinterpret_cast<const PieceRows*>(block + pieces.offset);
  call.piece_count = pieces.count;
  return call;
}

}  // namespace orrery::cuda
