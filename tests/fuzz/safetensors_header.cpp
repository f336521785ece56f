// The header of a safetensors file: "FILE_BYTES JSON".
#include "io/safetensors_header.hpp"

#include "fuzz/fuzz.hpp"

using namespace orrery;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view json = fuzz::text_of(data, size);
  const auto file_bytes = fuzz::take_number(json);
  if (!file_bytes) return -1;  // not for the corpus
  const auto tensors = fuzz::accepted([&] { return io::parse_header("file", json, *file_bytes); });
  if (!tensors) return 0;
  // What is accepted accounts for every byte behind the header.
  std::int64_t at = 8 + static_cast<std::int64_t>(json.size());
  for (const io::HeaderTensor& tensor : *tensors) {
    fuzz::require(tensor.info.file_offset == at && tensor.info.bytes >= 0);
    at += tensor.info.bytes;
  }
  fuzz::require(at == *file_bytes);
  return 0;
}
