#include "launch/options.hpp"

#include <algorithm>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/variables_map.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/config_file.hpp"
#include "launch/option_table.hpp"
#include "orrery/device.hpp"
#include "orrery/error.hpp"
#include "orrery/strategy.hpp"
#include "orrery/version.hpp"

namespace orrery::launch {
namespace {

namespace po = boost::program_options;

// Long options and -h, and no abbreviations: what a script says today must mean the same when options are added.
constexpr int kStyle = po::command_line_style::allow_long | po::command_line_style::long_allow_adjacent |
                       po::command_line_style::long_allow_next | po::command_line_style::allow_short |
                       po::command_line_style::allow_dash_for_short | po::command_line_style::short_allow_next;

po::variables_map parse_typed(std::span<char* const> arguments, const po::options_description& accepted) {
  po::variables_map values;
  const std::vector<std::string> words(arguments.begin(), arguments.end());
  try {
    const auto parsed = po::command_line_parser(words).options(accepted).style(kStyle).run();
    for (const auto& option : parsed.options) {
      if (option.position_key >= 0) {
        refuse("unexpected argument '", option.value.empty() ? "" : option.value.front(),
               "'; options are --name value");
      }
    }
    po::store(parsed, values);
  } catch (const po::error& error) {
    refuse(error.what());
  }
  return values;
}

bool parse_switch(const ConfigLine& line) {
  for (const char* yes : {"true", "yes", "on", "1"}) {
    if (line.value == yes) return true;
  }
  for (const char* no : {"false", "no", "off", "0"}) {
    if (line.value == no) return false;
  }
  refuse(line.place, ": ", line.name, " = '", line.value, "' is neither true nor false");
}

// The values given, typed or in the file of --config, and their conversion. What is typed wins. A number must fill its
// whole text and lie in its range.
class Given {
 public:
  Given(std::span<char* const> arguments, const po::options_description& accepted) {
    for (const auto& [name, value] : parse_typed(arguments, accepted)) {
      if (value.value().type() == typeid(bool)) {
        if (value.as<bool>()) text_[name] = "yes";
      } else {
        text_[name] = value.as<std::string>();
      }
    }
    if (has("config")) add_file(*string("config"), accepted);
  }

  const std::map<std::string, std::string>& text() const { return text_; }
  bool has(const std::string& name) const { return text_.count(name) != 0; }

  // Runs `read`. What it refuses of an option that came from the file names the line.
  template <typename Read>
  void with_places(const Read& read) const {
    try {
      read();
    } catch (const Error& error) {
      const std::string_view what = error.what();
      for (const ConfigLine& line : lines_) {
        const std::string option = "--" + line.name + " ";
        if (!what.starts_with(option) && !what.starts_with("--" + line.name + ":")) continue;
        const bool comment = line.value.find(" #") != std::string::npos || line.value.find(" ;") != std::string::npos;
        throw Error(error.code(), concat(line.place, ": ", what, comment ? "; a comment has a line of its own" : ""));
      }
      throw;
    }
  }

  std::optional<std::string> string(const std::string& name) const {
    const auto found = text_.find(name);
    if (found == text_.end()) return std::nullopt;
    if (found->second.empty()) refuse("--", name, " needs a value");
    return found->second;
  }

  template <typename Integer>
  std::optional<Integer> integer(const std::string& name, Integer low,
                                 Integer high = std::numeric_limits<Integer>::max()) const {
    const auto value = string(name);
    if (!value) return std::nullopt;
    Integer number{};
    const char* end = value->data() + value->size();
    const auto [stop, fault] = std::from_chars(value->data(), end, number);
    if (fault == std::errc::result_out_of_range && stop == end) refuse("--", name, " ", *value, " is out of range");
    if (fault != std::errc() || stop != end) refuse("--", name, " '", *value, "' is not a whole number");
    if (number < low) refuse("--", name, " ", *value, " is below ", low);
    if (number > high) refuse("--", name, " ", *value, " is above ", high);
    return number;
  }

  std::optional<double> real(const std::string& name) const {
    const auto value = string(name);
    if (!value) return std::nullopt;
    double number = 0;
    const char* end = value->data() + value->size();
    const auto [stop, fault] = std::from_chars(value->data(), end, number);
    if (fault != std::errc() || stop != end || !std::isfinite(number)) {
      refuse("--", name, " '", *value, "' is not a finite number");
    }
    return number;
  }

 private:
  void add_file(const std::string& path, const po::options_description& accepted) {
    for (ConfigLine& line : read_config_file(path)) {
      const po::option_description* option = accepted.find_nothrow(line.name, false);
      if (option == nullptr || line.name == "config" || line.name == "help") {
        refuse(line.place, ": '", line.name, "' is no option that a file may give to this verb");
      }
      const bool is_switch = option->semantic()->max_tokens() == 0;
      if (has(line.name) || (is_switch && !parse_switch(line))) continue;
      text_[line.name] = is_switch ? "yes" : line.value;
      lines_.push_back(std::move(line));
    }
  }

  std::map<std::string, std::string> text_;
  std::vector<ConfigLine> lines_;  // whose values hold
};

template <typename Parse>
auto named(const char* option, const std::string& value, const Parse& parse) {
  try {
    return parse(value);
  } catch (const Error& error) {
    throw Error(error.code(), concat("--", option, ": ", error.what()));
  }
}

void read_problem(const Given& given, Options& options) {
  options.seq_len = given.integer<std::int64_t>("seq-len", 0);
  options.batch = given.integer<std::int64_t>("batch", 1);
  options.heads = given.integer<int>("heads", 1);
  options.kv_heads = given.integer<int>("kv-heads", 1);
  options.head_dim = given.integer<int>("head-dim", 1);
  if (auto dtype = given.string("dtype")) options.dtype = named("dtype", *dtype, parse_dtype);
  options.mask = given.string("mask");
  if (auto scale = given.real("scale")) {
    if (*scale == 0) refuse("--scale 0 would make every score equal; leave it out for 1/sqrt(head_dim)");
    options.scale = *scale;
  }
  options.seed = given.integer<std::uint64_t>("seed", 0).value_or(0);
  options.backward = given.has("backward");
  if (auto inputs = given.string("inputs")) options.inputs = named("inputs", *inputs, parse_recipe);
}

void read_files(const Given& given, Options& options) {
  options.query = given.string("query").value_or("");
  options.key = given.string("key").value_or("");
  options.value = given.string("value").value_or("");
  options.grad_out = given.string("grad-out").value_or("");
  const int inputs = !options.query.empty() + !options.key.empty() + !options.value.empty();
  if (inputs != 0 && inputs != 3) refuse("--query, --key and --value are given together or not at all");
  if (!options.grad_out.empty() && inputs == 0) refuse("--grad-out needs --query, --key and --value");
  if (!options.grad_out.empty() && !options.backward) refuse("--grad-out needs --backward");
  if (inputs != 0 && given.has("inputs")) refuse("--inputs is of generated tensors, and --query names a file");
  options.allow_nonfinite = given.has("allow-nonfinite");
  if (options.allow_nonfinite && inputs == 0) refuse("--allow-nonfinite is of files, and --query names none");
  if (const auto layout = given.string("input-layout")) {
    if (*layout != "bshd" && *layout != "bhsd") refuse("--input-layout '", *layout, "' is neither bshd nor bhsd");
    if (inputs == 0) refuse("--input-layout needs --query, --key and --value");
    options.input_layout = *layout == "bhsd" ? AxisOrder::heads_tokens : AxisOrder::tokens_heads;
  }
  options.config = given.string("config").value_or("");
  options.json = given.string("json").value_or("");
  options.out = given.string("out").value_or("");
  options.trace = given.string("trace").value_or("");
}

// Options of the ring that have names of their own here.
void read_keys(const Given& given, Options& options) {
  for (const auto& [name, option] : {std::pair("keys-per-step", "keys"), {"backward-keys-per-step", "backward-keys"}}) {
    const std::string value = given.string(name).value_or("auto");
    if (value == "auto") continue;
    const bool any = given.integer<std::int64_t>(name, 0) > 0;
    if (any && option == std::string_view("backward-keys") && !options.backward)
      refuse("--", name, " needs --backward");
    StrategyText asked = parse_strategy(options.strategy);
    if (asked.name != "auto" && !find_strategy(asked.name).has(option)) {
      if (any) refuse("keys per step mean nothing with --strategy ", asked.name, ", which has no option ", option);
      continue;
    }
    if (asked.has(option)) refuse("--", name, " and --strategy ", options.strategy, " both give ", option);
    asked.options.emplace_back(option, value);
    options.strategy = asked.text();
  }
}

void read_placement(const Given& given, const Env& env, Options& options) {
  const std::string launcher = given.string("launcher").value_or(env.launcher ? "auto" : "none");
  if (launcher != "auto" && launcher != "none") refuse("--launcher '", launcher, "' is neither auto nor none");
  options.launcher = launcher == "auto";
  options.ranks = given.integer<int>("ranks", 1, 1024);
  options.world_size = given.integer<int>("world-size", 1, 1 << 20).value_or(1);
  options.threads = given.integer<int>("threads", 1, 1024).value_or(env.threads);
  options.layout = given.string("layout").value_or("auto");
  options.strategy = given.string("strategy").value_or("auto");
  read_keys(given, options);
}

void read_device(const Given& given, Verb verb, const Env& env, Options& options) {
  options.device = given.string("device").value_or("auto");
  if (options.device != "cpu" && options.device != "cuda" && options.device != "auto") {
    refuse("--device '", options.device, "' is none of cpu, cuda, auto");
  }
  const bool needed = options.device == "cuda" && verb != Verb::check;  // which reads programs and runs none
  if (needed && !has_cuda_backend()) {
    refuse("--device cuda: this build has no CUDA backend; use cpu or auto");
  }
  if (needed && cuda_devices().empty()) {
    refuse("--device cuda: there is no CUDA device that this process may use; use cpu or auto");
  }
  for (const char* name : {"device-index", "share-device", "link", "sm-margin", "kernels"}) {
    if (options.device == "cpu" && given.has(name)) refuse("--", name, " means nothing with --device cpu");
  }
  if (given.string("device-index").value_or("auto") != "auto") {
    options.device_index = given.integer<int>("device-index", 0);
  }
  options.share_device = given.has("share-device");
  options.sm_margin = given.integer<int>("sm-margin", 0).value_or(env.sm_margin);
  const std::string kernels = given.string("kernels").value_or(env.portable_kernels ? "portable" : "best");
  if (kernels != "best" && kernels != "portable") refuse("--kernels '", kernels, "' is neither best nor portable");
  options.portable_kernels = kernels == "portable";
  options.link = given.string("link").value_or("auto");
  if (options.link != "auto" && options.link != "nccl" && options.link != "mpi") {
    refuse("--link '", options.link, "' is none of auto, nccl, mpi");
  }
}

void read_rest(const Given& given, const Env& env, Options& options) {
  if (auto mode = given.string("verify")) options.verify = named("verify", *mode, parse_verify_mode);
  options.prove = given.has("check") || env.check;
  options.agree_always = env.agree_always;
  options.print_rank = given.integer<int>("print", 0);
  options.repeat = given.integer<int>("repeat", 1, 1000000);
  options.warmup = given.integer<int>("warmup", 0, 1000000);
  options.suite = given.string("suite").value_or("");
  if (!options.suite.empty() && options.suite != "kernel" && options.suite != "ring" && options.suite != "overhead" &&
      options.suite != "all") {
    refuse("--suite '", options.suite, "' is none of kernel, ring, overhead, all");
  }
  options.timeout_seconds = given.real("timeout").value_or(env.timeout_seconds);
  if (options.timeout_seconds <= 0) refuse("--timeout must be above 0");
}

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// What no single option can show to be wrong.
void settle(Verb verb, Options& options) {
  if (verb == Verb::trace) {
    if (!options.out.empty() && !options.trace.empty()) refuse("--out and --trace name the same file; give one");
    if (options.trace.empty()) options.trace = options.out.empty() ? "trace.json" : options.out;
    options.out.clear();
  }
  if (!options.trace.empty() && !ends_with(options.trace, ".json") && !ends_with(options.trace, ".svg")) {
    refuse("the timeline's file must end in .json or .svg: ", options.trace);
  }
  if (options.print_rank && *options.print_rank >= options.world_size) {
    refuse("--print ", *options.print_rank, ": the plan has ", options.world_size, " ranks, numbered from 0");
  }
}

Verb verb_named(std::string_view name) {
  const auto verb = find_verb(name);
  if (!verb) refuse("unknown verb '", name, "'; the verbs are ", kVerbs);
  return *verb;
}

// What a command that is no verb prints; nothing when it is a verb.
std::optional<std::string> words_of(std::string_view name, std::span<char* const> rest) {
  const auto ends = [&, most = std::size_t{name == "help"}] {
    if (rest.size() > most) refuse("unexpected argument '", rest[most], "' after ", name);
  };
  if (name == "help" || name == "--help" || name == "-h") {
    ends();
    return rest.empty() ? general_help() : help_of(verb_named(rest.front()));
  }
  if (name == "--version" || name == "-V") {
    ends();
    return concat("orrery ", kVersion, "\n");
  }
  return std::nullopt;
}

}  // namespace

Command parse_command(std::span<char* const> arguments, const Env& env) {
  if (arguments.empty() || *arguments.front() == '\0') {
    refuse("no verb given; the verbs are ", kVerbs, ", and --help explains them");
  }
  Command command;
  command.name = arguments.front();
  const auto rest = arguments.subspan(1);
  if (auto words = words_of(command.name, rest)) {
    command.help = *std::move(words);
    return command;
  }
  command.verb = verb_named(command.name);

  const Given given(rest, options_of(command.verb));
  command.given = given.text();
  if (given.has("help")) {
    command.help = help_of(command.verb);
    command.verb = Verb::help;
    return command;
  }
  given.with_places([&] {
    read_problem(given, command.options);
    read_files(given, command.options);
    read_placement(given, env, command.options);
    read_device(given, command.verb, env, command.options);
    read_rest(given, env, command.options);
    settle(command.verb, command.options);
  });
  return command;
}

}  // namespace orrery::launch
