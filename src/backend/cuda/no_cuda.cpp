// A build without CUDA: there is nothing to compute on.
#include "backend/cuda/cuda_backend.hpp"
#include "orrery/error.hpp"

namespace orrery::cuda {
namespace {

constexpr const char* kSentence = "this build has no CUDA backend; configure with the preset cuda";

}  // namespace

OwnStream open_stream(int) {
  refuse(kSentence);
}
void CloseStream::operator()(void*) const noexcept {}

std::string refuses(const AttentionProblem&) {
  return kSentence;
}
std::string refuses_backward(const AttentionProblem&, bool, int) {
  return kSentence;
}
std::string refuses(const TensorView&) {
  return kSentence;
}
std::string refuses_margin(int, int) {
  return kSentence;
}
std::string_view kernels_of(const AttentionProblem&, Pass, bool, int) {
  refuse(kSentence);
}
ScratchBytes scratch_bytes(const AttentionProblem&, const RankProgram&, StreamLink&) {
  refuse(kSentence);
}
std::unique_ptr<CudaBackend> make_cuda_backend(const AttentionProblem&, const RankProgram&, const Dependencies&,
                                               // NOLINTNEXTLINE(performance-unnecessary-value-param): it is kept
                                               std::vector<BufferMemory>, const Scratch&, StreamLink&,
                                               const CudaOptions&) {
  refuse(kSentence);
}

}  // namespace orrery::cuda
