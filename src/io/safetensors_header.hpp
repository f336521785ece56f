// The header of a safetensors file: eight bytes of little-endian length, that many bytes of JSON, then the tensors back
// to back. A header says where every byte of the file belongs, so parse_header() accepts one only when its account is
// complete: each tensor's range has the size of its shape, the ranges follow one another without gap or overlap from
// the first data byte to the last byte of the file. Members are checked as they are met, so depth, repeated keys and
// wrong types are found before anything is built from them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "orrery/io.hpp"

namespace orrery::io {

constexpr std::int64_t kMaxHeaderBytes = 100'000'000;

struct HeaderTensor {
  TensorInfo info;         // dtype is meaningful only where `readable`
  std::string dtype_name;  // as the file spells it
  bool readable = false;   // fp32, bf16 or fp16
};

// `json` is the text between the length and the data, `file_bytes` the size of the whole file. Tensors come back in the
// order of their data. Throws ErrorCode::invalid, in one line that begins with the path.
std::vector<HeaderTensor> parse_header(const std::string& path, std::string_view json, std::int64_t file_bytes);

// Lays the tensors out back to back, sets file_offset and bytes of each, and returns the header, length included.
// Padding with spaces makes the data begin at a multiple of eight bytes, and wide elements come first, so that each
// tensor is aligned for a reader that maps the file. Refuses empty, repeated and reserved names.
std::string make_header(const std::string& path, std::span<TensorInfo> tensors);

}  // namespace orrery::io
