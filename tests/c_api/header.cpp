// orrery.h is a header of C++ too, beside orrery.hpp.
#include <orrery/orrery.h>

#include <orrery/orrery.hpp>

static_assert(ORRERY_PEER == static_cast<int>(orrery::ErrorCode::peer));
static_assert(ORRERY_QUERY == static_cast<int>(orrery::Generated::query));
static_assert(ORRERY_GRAD_OUT == static_cast<int>(orrery::Generated::grad_out));

int main() {
  const orrery_problem problem = ORRERY_PROBLEM_INIT;
  const orrery_tensors tensors = ORRERY_TENSORS_INIT;
  const orrery_attention_options options = ORRERY_ATTENTION_OPTIONS_INIT;
  const orrery::AttentionOptions same;
  const bool good = problem.mask == nullptr && tensors.query.data == nullptr && options.threads == same.threads &&
                    (options.deterministic != 0) == same.deterministic && options.sm_margin == same.sm_margin &&
                    options.bindings == same.bindings && (options.portable_kernels != 0) == same.portable_kernels &&
                    orrery_abi_version() == ORRERY_ABI_VERSION;
  return good ? 0 : 1;
}
