#include "io/safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <tuple>

#include <nlohmann/json.hpp>

#include "io/file.hpp"
#include "orrery/error.hpp"

namespace orrery::io {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kMetadata = "__metadata__";
constexpr std::size_t kNameShown = 80;
constexpr int kDeepest = 128;  // the reference reader's limit

// Every dtype the format knows. What Orrery cannot read must still be sized, for the account of the file to be
// complete.
struct KnownDtype {
  std::string_view name;
  int bits;
  std::optional<Dtype> readable;
};

constexpr std::array kKnownDtypes = {
    KnownDtype{"F32", 32, Dtype::fp32},
    KnownDtype{"BF16", 16, Dtype::bf16},
    KnownDtype{"F16", 16, Dtype::fp16},
    KnownDtype{"F64", 64, {}},
    KnownDtype{"C64", 64, {}},
    KnownDtype{"I64", 64, {}},
    KnownDtype{"U64", 64, {}},
    KnownDtype{"I32", 32, {}},
    KnownDtype{"U32", 32, {}},
    KnownDtype{"I16", 16, {}},
    KnownDtype{"U16", 16, {}},
    KnownDtype{"I8", 8, {}},
    KnownDtype{"U8", 8, {}},
    KnownDtype{"BOOL", 8, {}},
    KnownDtype{"F8_E5M2", 8, {}},
    KnownDtype{"F8_E4M3", 8, {}},
    KnownDtype{"F8_E8M0", 8, {}},
    KnownDtype{"F8_E4M3FNUZ", 8, {}},
    KnownDtype{"F8_E5M2FNUZ", 8, {}},
    KnownDtype{"F6_E2M3", 6, {}},
    KnownDtype{"F6_E3M2", 6, {}},
    KnownDtype{"F4", 4, {}},
};

const KnownDtype* find_dtype(std::string_view name) {
  const auto* found = std::find_if(kKnownDtypes.begin(), kKnownDtypes.end(), [&](auto& d) { return d.name == name; });
  return found == kKnownDtypes.end() ? nullptr : found;
}

std::string_view name_in_file(Dtype dtype) {
  const auto* found =
      std::find_if(kKnownDtypes.begin(), kKnownDtypes.end(), [&](auto& d) { return d.readable == dtype; });
  return found->name;
}

// Receives the JSON event by event. The only documents it lets through are
//   {"__metadata__": {KEY: TEXT, ...}, NAME: {"dtype": TEXT, "shape": [N, ...], "data_offsets": [N, N]}, ...}
// where __metadata__ may also be null, and a tensor may have further fields, as for the format's reference reader. So
// where it stands is one of six places; only the value of a further field goes deeper, and is passed over.
class HeaderReader {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}

  struct Entry {
    std::string name;
    std::optional<std::string> dtype;
    std::optional<std::vector<std::int64_t>> shape, offsets;
  };
  std::vector<Entry> take() { return std::move(entries_); }

  bool start_object(std::size_t) {
    if (passed_over()) return enter();
    switch (place_) {
      case Place::outside:
        place_ = Place::top;
        return true;
      case Place::top:
        place_ = key_ == kMetadata ? Place::metadata : Place::tensor;
        break;
      default:
        unexpected("an object");
    }
    if (place_ == Place::tensor) entries_.push_back({key_, {}, {}, {}});
    return true;
  }
  bool key(std::string& text) {
    if (place_ == Place::top) {
      if (!names_.insert(text).second) refuse(quoted(path_), ": the header has two entries ", shown(text));
    } else if (place_ == Place::tensor &&
               ((text == "dtype" && entries_.back().dtype) || (text == "shape" && entries_.back().shape) ||
                (text == "data_offsets" && entries_.back().offsets))) {
      refuse(quoted(path_), ": tensor ", tensor(), " has two fields ", shown(text));
    }
    key_ = text;
    return true;
  }
  bool end_object() {
    if (place_ == Place::further) return leave();
    if (place_ == Place::tensor) {
      const Entry& entry = entries_.back();
      const char* missing = !entry.dtype ? "dtype" : !entry.shape ? "shape" : !entry.offsets ? "data_offsets" : nullptr;
      if (missing) refuse(quoted(path_), ": tensor ", tensor(), " has no ", missing);
    }
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }
  bool start_array(std::size_t) {
    if (passed_over()) return enter();
    if (place_ != Place::tensor || key_ == "dtype") unexpected("an array");
    place_ = Place::numbers;
    list().emplace();
    return true;
  }
  bool end_array() {
    if (place_ == Place::further) return leave();
    place_ = Place::tensor;
    if (key_ == "data_offsets" && entries_.back().offsets->size() != 2) {
      refuse(quoted(path_), ": tensor ", tensor(), ": data_offsets has ", entries_.back().offsets->size(),
             " numbers instead of 2");
    }
    return true;
  }
  bool string(std::string& text) {
    if (place_ == Place::metadata || passed_over()) return true;
    if (place_ != Place::tensor || key_ != "dtype") unexpected("a string");
    entries_.back().dtype = text;
    return true;
  }
  bool number_unsigned(std::uint64_t value) {
    if (passed_over()) return true;
    if (place_ != Place::numbers) unexpected("a number");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      refuse(quoted(path_), ": tensor ", tensor(), ": ", key_, " holds ", value, ", which is too large");
    }
    list()->push_back(static_cast<std::int64_t>(value));
    return true;
  }
  bool number_integer(std::int64_t value) {
    if (passed_over()) return true;
    if (place_ != Place::numbers) unexpected("a number");
    refuse(quoted(path_), ": tensor ", tensor(), ": ", key_, " holds the negative number ", value);
  }
  bool number_float(double, const std::string& text) {
    if (passed_over()) return true;
    if (place_ != Place::numbers) unexpected("a number");
    refuse(quoted(path_), ": tensor ", tensor(), ": ", key_, " holds ", shown(text), ", which is not a 64-bit integer");
  }
  bool boolean(bool) {
    if (passed_over()) return true;
    unexpected("a boolean");
  }
  bool null() {
    if (passed_over() || (place_ == Place::top && key_ == kMetadata)) return true;
    unexpected("null");
  }
  bool binary(Json::binary_t&) { unexpected("binary data"); }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception&) {
    refuse(quoted(path_), ": the header is not valid JSON at its byte ", byte);
  }

 private:
  enum class Place { outside, top, metadata, tensor, numbers, further };

  // Whether what comes now is, or lies in, the value of a field that the format does not know.
  bool passed_over() const {
    const bool known = key_ == "dtype" || key_ == "shape" || key_ == "data_offsets";
    return place_ == Place::further || (place_ == Place::tensor && !known);
  }
  bool enter() {
    place_ = Place::further;
    if (++depth_ > kDeepest) refuse(quoted(path_), ": tensor ", tensor(), " has a field deeper than ", kDeepest);
    return true;
  }
  bool leave() {
    if (--depth_ == 0) place_ = Place::tensor;
    return true;
  }

  std::optional<std::vector<std::int64_t>>& list() {
    return key_ == "shape" ? entries_.back().shape : entries_.back().offsets;
  }
  static std::string shown(std::string_view text) { return quoted(text, kNameShown); }
  std::string tensor() const { return shown(entries_.back().name); }
  [[noreturn]] void unexpected(std::string_view what) const {
    switch (place_) {
      case Place::outside:
        refuse(quoted(path_), ": the header is ", what, " instead of an object");
      case Place::top:
        refuse(quoted(path_), ": the header entry ", shown(key_), " is ", what, " instead of an object");
      case Place::metadata:
        refuse(quoted(path_), ": __metadata__ ", shown(key_), " is ", what, " instead of a string");
      case Place::tensor:
        refuse(quoted(path_), ": tensor ", tensor(), ": ", key_, " is ", what);
      case Place::numbers:
        refuse(quoted(path_), ": tensor ", tensor(), ": ", key_, " holds ", what);
      case Place::further:
        break;
    }
    fail(ErrorCode::bug, "the header reader is nowhere");
  }

  const std::string& path_;
  Place place_ = Place::outside;
  std::string key_;
  int depth_ = 0;  // of the objects and arrays around, within a further field
  std::set<std::string> names_;
  std::vector<Entry> entries_;
};

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i == 8) return text + ", ...]";
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

// Bytes of a tensor; nothing when they do not fit in 63 bits or do not fill a whole number of bytes.
std::optional<std::int64_t> bytes_of(std::span<const std::int64_t> shape, int bits) {
  std::int64_t total = bits;
  for (const std::int64_t extent : shape) {
    if (__builtin_mul_overflow(total, extent, &total)) return {};
  }
  if (total % 8 != 0) return {};
  return total / 8;
}

HeaderTensor check_tensor(const std::string& path, HeaderReader::Entry entry, std::int64_t data_bytes) {
  const std::string name = concat(quoted(path), ": tensor ", quoted(entry.name, kNameShown));
  const KnownDtype* dtype = find_dtype(*entry.dtype);
  if (!dtype) refuse(name, " has the unknown dtype ", quoted(*entry.dtype, kNameShown));
  const std::int64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
  if (begin > end) refuse(name, ": data_offsets are reversed: ", begin, ", ", end);
  if (end > data_bytes) refuse(name, " ends at data byte ", end, " but the file has ", data_bytes);
  const auto bytes = bytes_of(*entry.shape, dtype->bits);
  if (!bytes) refuse(name, " of shape ", shape_text(*entry.shape), " and dtype ", dtype->name, " has no size in bytes");
  if (*bytes != end - begin) {
    refuse(name, " of shape ", shape_text(*entry.shape), " and dtype ", dtype->name, " needs ", *bytes,
           " bytes but its data_offsets hold ", end - begin);
  }
  return {{std::move(entry.name), dtype->readable.value_or(Dtype::fp32), std::move(*entry.shape), begin, *bytes},
          std::move(*entry.dtype),
          dtype->readable.has_value()};
}

}  // namespace

std::vector<HeaderTensor> parse_header(const std::string& path, std::string_view json, std::int64_t file_bytes) {
  // The JSON reader would skip a byte order mark and take a zero byte for the end of the text.
  if (!json.starts_with('{'))
    refuse(quoted(path), ": the header does not begin with \"{\"; is this a safetensors file?");
  if (json.find('\0') != std::string_view::npos) refuse(quoted(path), ": the header holds a zero byte");
  HeaderReader reader(path);
  Json::sax_parse(json.begin(), json.end(), &reader);

  const std::int64_t data_begin = 8 + static_cast<std::int64_t>(json.size());
  const std::int64_t data_bytes = file_bytes - data_begin;
  std::vector<HeaderTensor> tensors;
  for (HeaderReader::Entry& entry : reader.take()) tensors.push_back(check_tensor(path, std::move(entry), data_bytes));
  std::stable_sort(tensors.begin(), tensors.end(), [](const HeaderTensor& a, const HeaderTensor& b) {
    return std::tuple(a.info.file_offset, a.info.bytes) < std::tuple(b.info.file_offset, b.info.bytes);
  });
  std::int64_t reached = 0;
  for (HeaderTensor& tensor : tensors) {
    const std::string name = quoted(tensor.info.name, kNameShown);
    const std::int64_t begin = tensor.info.file_offset;
    if (begin < reached)
      refuse(quoted(path), ": tensor ", name, " begins at data byte ", begin, ", inside another one");
    if (begin > reached) refuse(quoted(path), ": data bytes ", reached, " to ", begin, " belong to no tensor");
    reached += tensor.info.bytes;
    tensor.info.file_offset += data_begin;
  }
  if (reached != data_bytes) {
    refuse(quoted(path), ": ", data_bytes - reached, " bytes after the last tensor belong to none");
  }
  return tensors;
}

std::string make_header(const std::string& path, std::span<TensorInfo> tensors) {
  Json json = Json::object();
  std::int64_t data_bytes = 0;
  for (const std::size_t element_bytes : {4, 2}) {
    for (TensorInfo& tensor : tensors) {
      if (size_of(tensor.dtype) != element_bytes) continue;
      const std::string name = concat(quoted(path), ": tensor ", quoted(tensor.name, kNameShown));
      if (tensor.name.empty() || tensor.name == kMetadata || json.contains(tensor.name)) {
        refuse(name, " cannot be written: the name is empty, reserved or used twice");
      }
      const auto bytes = bytes_of(tensor.shape, static_cast<int>(8 * element_bytes));
      std::int64_t end = 0;
      if (!bytes || __builtin_add_overflow(data_bytes, *bytes, &end)) {
        refuse(name, " of shape ", shape_text(tensor.shape), " is too large for a file");
      }
      json[tensor.name] = {
          {"dtype", name_in_file(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {data_bytes, end}}};
      tensor.file_offset = data_bytes;
      tensor.bytes = *bytes;
      data_bytes = end;
    }
  }
  std::string text;
  try {
    text = json.dump();
  } catch (const Json::exception&) {
    refuse(quoted(path), ": a tensor name is not valid UTF-8");
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string header;
  for (int byte = 0; byte < 8; ++byte) header += static_cast<char>((text.size() >> (8 * byte)) & 0xff);
  header += text;
  for (TensorInfo& tensor : tensors) tensor.file_offset += static_cast<std::int64_t>(header.size());
  return header;
}

}  // namespace orrery::io
