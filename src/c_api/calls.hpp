// The border to C. No exception crosses it: every function of orrery.h that can fail does its work inside guarded(),
// which turns what is thrown into a status and a message. Structures cross it by their sizes: read() and write() let
// callers and library be of different versions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>

#include "orrery/device.hpp"
#include "orrery/error.hpp"
#include "orrery/orrery.h"
#include "orrery/schedule.hpp"
#include "orrery/tensor.hpp"

namespace orrery::c_api {

// `tell` is called with the message of an error, which it must not throw over.
template <typename Tell, typename Body>
orrery_status guarded(const Tell& tell, const Body& body) noexcept {
  try {
    body();
    return ORRERY_OK;
  } catch (const Error& error) {
    tell(error.what());
    return static_cast<orrery_status>(error.code());
  } catch (const std::bad_alloc&) {
    tell("out of memory");
    return ORRERY_RESOURCE;
  } catch (const std::exception& error) {
    tell(error.what());
    return ORRERY_BUG;
  } catch (...) {
    tell("an exception of unknown type");
    return ORRERY_BUG;
  }
}

// As much of a text as fits into a caller's buffer, and the length of all of it.
inline std::int64_t give(std::string_view all, char* text, std::size_t text_size) noexcept {
  if (text != nullptr && text_size > 0) {
    const std::size_t fits = std::min(all.size(), text_size - 1);
    std::memcpy(text, all.data(), fits);
    text[fits] = '\0';
  }
  return static_cast<std::int64_t>(all.size());
}

// For functions without a context: into the caller's buffer, or nowhere.
struct ToBuffer {
  char* message;
  std::size_t message_size;
  void operator()(const char* text) const noexcept { give(text, message, message_size); }
};
struct ToNobody {
  void operator()(const char*) const noexcept {}
};

// The functions that return a number: `body` gives it, and an error is minus its status.
template <typename Tell, typename Body>
std::int64_t guarded_number(const Tell& tell, const Body& body) noexcept {
  std::int64_t number = 0;
  const orrery_status status = guarded(tell, [&] { number = body(); });
  return status == ORRERY_OK ? number : -status;
}

template <typename Pointer>
void require(Pointer pointer, std::string_view name) {
  if (pointer == nullptr) refuse(name, " is NULL");
}

// No structure will ever be as large: a size that was not set is caught before so much is read.
constexpr std::size_t kLargestStruct = 4096;

template <typename Struct>
std::size_t size_given(const Struct* given, std::string_view name) {
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < sizeof size || size > kLargestStruct) {
    refuse(name, " has the struct_size ", size, "; set it with the macro that ends in _INIT");
  }
  return size;
}

// What a caller gave, whatever the version of its header: missing fields have their defaults, and those that are not
// known here are 0. NULL stands for all defaults.
template <typename Struct>
Struct read(const Struct* given, const Struct& defaults, std::string_view name) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  Struct known = defaults;
  if (given == nullptr) return known;
  const std::size_t size = size_given(given, name);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t at = sizeof(Struct); at < size; ++at) {
    if (bytes[at] != 0) {
      refuse(name, " comes from a newer header and sets a field that Orrery ", orrery_version(), " does not know");
    }
  }
  std::memcpy(&known, given, std::min(size, sizeof(Struct)));
  return known;
}

// The fields for which the caller's structure has room; those that are not known here are 0.
template <typename Struct>
void write(const Struct& value, Struct* into, std::string_view name) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  require(into, name);
  const std::size_t size = size_given(into, name), known = std::min(size, sizeof(Struct));
  auto* bytes = reinterpret_cast<unsigned char*>(into);
  std::memcpy(bytes + sizeof size, reinterpret_cast<const unsigned char*>(&value) + sizeof size, known - sizeof size);
  std::memset(bytes + known, 0, size - known);
}

inline Dtype dtype_of(orrery_dtype dtype) {
  if (dtype < ORRERY_FP32 || dtype > ORRERY_FP16) refuse("there is no dtype ", dtype);
  return static_cast<Dtype>(dtype);
}
inline Pass pass_of(orrery_pass pass) {
  if (pass != ORRERY_FORWARD && pass != ORRERY_BACKWARD) refuse("there is no pass ", pass);
  return static_cast<Pass>(pass);
}
inline Device device_of(orrery_device device) {
  if (device.kind != ORRERY_CPU && device.kind != ORRERY_CUDA) refuse("there is no device of kind ", device.kind);
  if (device.index < 0) refuse("there is no device ", device.index);
  return {static_cast<DeviceKind>(device.kind), device.index};
}
inline const char* text_or(const char* text, const char* otherwise) {
  return text == nullptr ? otherwise : text;
}

static_assert(ORRERY_FP32 == static_cast<int>(Dtype::fp32) && ORRERY_BF16 == static_cast<int>(Dtype::bf16) &&
              ORRERY_FP16 == static_cast<int>(Dtype::fp16));
static_assert(ORRERY_FORWARD == static_cast<int>(Pass::forward) && ORRERY_BACKWARD == static_cast<int>(Pass::backward));
static_assert(ORRERY_CPU == static_cast<int>(DeviceKind::cpu) && ORRERY_CUDA == static_cast<int>(DeviceKind::cuda));
static_assert(ORRERY_BUG == static_cast<int>(ErrorCode::bug) &&
              ORRERY_INVALID == static_cast<int>(ErrorCode::invalid) &&
              ORRERY_VERIFICATION == static_cast<int>(ErrorCode::verification) &&
              ORRERY_PEER == static_cast<int>(ErrorCode::peer) &&
              ORRERY_RESOURCE == static_cast<int>(ErrorCode::resource) &&
              ORRERY_INTERRUPTED == static_cast<int>(ErrorCode::interrupted));

}  // namespace orrery::c_api
