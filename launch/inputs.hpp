// Where the query, key, value and grad_out tensors come from: safetensors files, or the generator. Either way every
// rank makes only its own rows.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "launch/options.hpp"
#include "orrery/attention.hpp"
#include "orrery/generate.hpp"
#include "orrery/io.hpp"
#include "orrery/problem.hpp"

namespace orrery::launch {

// What the sizes are when neither options nor files say.
struct Sizes {
  std::int64_t batch = 1, seq_len = 4096;
  int heads = 8, head_dim = 64;
  int kv_heads = 0;  // 0: as many as heads
};

// The problem of the options alone.
AttentionProblem generated_problem(const Options& options, const Sizes& defaults = {});

class Inputs {
 public:
  // Opens the files that the options name and checks that they fit together; sizes given beside them must agree.
  explicit Inputs(const Options& options);
  // Generated inputs of a problem.
  Inputs(const AttentionProblem& problem, const Options& options)
      : problem_(problem), seed_(options.seed), recipe_(options.inputs) {}

  const AttentionProblem& problem() const { return problem_; }
  std::uint64_t seed() const { return seed_; }
  Recipe recipe() const { return recipe_; }
  bool from_files() const { return query_.has_value(); }
  // Whether the tensors have a leading batch dimension in the files.
  bool batched() const { return batched_; }
  std::string describe() const;
  // What the user should know of the inputs before they are used, as a line; empty when there is nothing.
  const std::string& note() const { return note_; }

  // Fills query, key, value and, where there is one, grad_out with the rows at `positions`. The tensors are dense and
  // lie on `device`. Refused, with the tensor, the token, the head and the value: a NaN or an infinity in a file,
  // unless the options allow them.
  void fill(const AttentionTensors& tensors, std::span<const Span> positions, Device device) const;

 private:
  struct Source {
    SafetensorsFile file;
    TensorInfo info;
    std::string text() const { return concat(file.path(), ":", info.name); }
  };
  static Source open(const std::string& given, std::string_view default_name);
  void read(const std::optional<Source>& source, Generated generated, const TensorView& into,
            std::span<const Span> positions, Device device) const;

  AttentionProblem problem_;
  std::uint64_t seed_ = 0;
  Recipe recipe_ = Recipe::normal;
  bool allow_nonfinite_ = false;
  AxisOrder order_ = AxisOrder::tokens_heads;  // in the files
  std::string note_;
  bool batched_ = true;
  std::optional<Source> query_, key_, value_, grad_out_;
};

}  // namespace orrery::launch
