// The command line as values. Three sources are merged, and the one nearer to the user wins: the options typed, the
// file that --config names, and the ORRERY_ variables of the site. A verb accepts only the options that mean something
// to it, and refuses all others.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "orrery/env.hpp"
#include "orrery/generate.hpp"
#include "orrery/io.hpp"
#include "orrery/tensor.hpp"
#include "orrery/verify.hpp"

namespace orrery::launch {

enum class Verb { help, run, check, bench, trace, info };

struct Options {
  // Problem. What is not given comes from the input files, or else from the defaults of default_sizes().
  std::optional<std::int64_t> seq_len, batch;
  std::optional<int> heads, kv_heads, head_dim;
  std::optional<Dtype> dtype;
  std::optional<std::string> mask;  // causal
  double scale = 0;                 // 0: 1 / sqrt(head_dim)
  std::uint64_t seed = 0;
  bool backward = false;
  Recipe inputs = Recipe::normal;  // of generated tensors
  bool allow_nonfinite = false;    // in files

  // Files; empty when not given.
  std::string query, key, value, grad_out, out, config;
  std::optional<AxisOrder> input_layout;  // tokens_heads

  // Placement.
  bool launcher = true;      // asked for ranks; false: this process runs alone, whatever started it
  std::optional<int> ranks;  // threads of this process; 1
  int world_size = 1;        // of check
  std::string layout = "auto", strategy = "auto";
  int threads = 1;
  std::string device = "auto";      // cpu, cuda or auto
  std::optional<int> device_index;  // of every rank; by the rank's number on its host
  bool share_device = false;        // more ranks of a host than it has devices
  std::string link = "auto";        // between devices of different processes
  int sm_margin = 0;                // multiprocessors that attention kernels leave free
  bool portable_kernels = false;    // even where the device has its own

  // Trust.
  std::optional<bool> agree_always;  // ranks compare their calls at each one; without, what the build does
  VerifyMode verify = VerifyMode::sample;
  bool prove = false;
  std::optional<int> print_rank;  // of check

  // Report.
  std::string json, trace;
  std::optional<int> repeat, warmup;
  std::string suite;  // of bench; empty: one row, of the problem given

  double timeout_seconds = 300;
};

struct Command {
  Verb verb = Verb::help;
  std::string name;  // as typed
  std::string help;  // what to print, when that was all that was asked for
  Options options;
  // The options given, by name, as text: what ranks compare before they start.
  std::map<std::string, std::string> given;
};

// `arguments` without the program's name. Throws ErrorCode::invalid with one line that names the option and the value.
Command parse_command(std::span<char* const> arguments, const Env& env);

}  // namespace orrery::launch
