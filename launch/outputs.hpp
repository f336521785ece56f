// The files that a run writes: what --out, --trace and --json name. They are compared and opened before anything is
// computed. Files are compared, not their names: no output may be an input or another output, however it is spelled.
// An output that is standard output ("-", /dev/stdout, or the file that it was sent to) takes the place of the text.
#pragma once

#include <cstdint>
#include <optional>

#include "launch/interrupt.hpp"
#include "launch/options.hpp"
#include "orrery/output_file.hpp"

namespace orrery::launch {

class Outputs {
 public:
  // Of the rank that writes. `out_bytes`: the size that the file of --out will have, for a verb that writes one. Throws
  // ErrorCode::invalid where two are one file or an output is an input, and as OutputFile does.
  explicit Outputs(const Options& options, std::int64_t out_bytes = 0);

  // Null when not asked for.
  OutputFile* out() { return out_.get(); }
  OutputFile* trace() { return trace_.get(); }
  OutputFile* json() { return json_.get(); }
  // Whether standard output is left for the text.
  bool text() const { return text_; }

 private:
  struct Output {
    std::optional<OutputFile> file;
    std::optional<Watched> watched;
    OutputFile* get() { return file ? &*file : nullptr; }
  };

  Output out_, trace_, json_;
  bool text_ = true;
};

}  // namespace orrery::launch
