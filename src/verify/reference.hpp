// What the results of sampled rows should be: by the definition, in float64, from the shares of all ranks; or by the
// closed form of counting inputs. Rows stand one behind the other in flat vectors: [samples, head_dim] and the like.
#pragma once

#include <memory>
#include <span>

#include "orrery/world.hpp"
#include "verify/compare.hpp"
#include "verify/shares.hpp"

namespace orrery {

struct RowReferences {
  Doubles out;          // [samples, head_dim]
  Doubles lse;          // [samples], -inf of a row that sees no key
  Doubles score_sizes;  // [samples]: |scale| |query| |key|, the mean over the row's softmax
  std::vector<Terms> out_terms;
  Doubles grad_query;  // with backward
  std::vector<Terms> grad_query_terms;
};

struct KeyReferences {
  Doubles grad_key, grad_value;  // [samples, head_dim]
  std::vector<Terms> grad_key_terms, grad_value_terms;
};

class Reference {
 public:
  virtual ~Reference() = default;

  // True where every rank takes part in every reference, and is given the same samples; else a rank gives its own.
  virtual bool collective() const = 0;
  virtual RowReferences rows(std::span<const Sample> samples) = 0;
  // After those of all rows. `head` of the samples is a KV head.
  virtual KeyReferences keys(std::span<const Sample> samples) = 0;
};

// All of these must outlive it. full: dk and dv take the lse and delta of the reference's own rows, not of the run's.
std::unique_ptr<Reference> make_float64_reference(World& world, const Plan& plan, const AttentionTensors& tensors,
                                                  Shares& shares, bool backward, bool full);
std::unique_ptr<Reference> make_counting_reference(const Plan& plan, bool backward);

}  // namespace orrery
