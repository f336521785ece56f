#include "launch/option_table.hpp"

#include <algorithm>
#include <array>

#include "orrery/error.hpp"
#include "orrery/strategy.hpp"

namespace orrery::launch {
namespace {

namespace po = boost::program_options;

constexpr unsigned kLineLength = 110;

struct VerbInfo {
  Verb verb;
  std::string_view name, summary, details;
};

constexpr std::array kVerbTable = {
    VerbInfo{
        Verb::run, "run", "computes attention over a sharded sequence, verifies it and reports",
        "Inputs are read from safetensors files, or generated: the same ones whatever the number of ranks.\n"
        "  mpirun -n 4 orrery run --seq-len 16384 --heads 8\n"
        "  orrery run --ranks 3 --query q.safetensors --key k.safetensors --value v.safetensors --out o.safetensors\n"},
    VerbInfo{Verb::check, "check", "proves a schedule without running it, and prints what it finds",
             "One process proves all ranks: every admitted (query, key) pair is computed exactly once, every gradient\n"
             "comes home, nothing deadlocks, nothing is read too early or overwritten too soon, every step is needed.\n"
             "  orrery check --world-size 64 --seq-len 65536 --mask causal --backward\n"},
    VerbInfo{Verb::bench, "bench", "measures rows, verifying each in the same run",
             "  orrery bench --suite kernel        the kernels of one thread against this core's measured peak\n"
             "  mpirun -n 2 orrery bench --suite ring      all ranks against one, alternating\n"
             "  orrery bench --suite overhead      what a step costs beside its work, and planning a rank of 1,024\n"
             "  orrery bench --seq-len 8192        one row, of the problem given\n"
             "Sizes given replace those of a suite.\n"},
    VerbInfo{Verb::trace, "trace", "runs, and draws when every step of every rank ran",
             "  mpirun -n 4 orrery trace --seq-len 16384 --out ring.svg     a picture\n"
             "  mpirun -n 4 orrery trace --seq-len 16384 --out ring.json    for chrome://tracing and Perfetto\n"},
    VerbInfo{Verb::info, "info", "says what this build and this machine are", ""},
};

const VerbInfo& info_of(Verb verb) {
  return *std::find_if(kVerbTable.begin(), kVerbTable.end(), [&](const VerbInfo& v) { return v.verb == verb; });
}

constexpr unsigned bit(Verb verb) {
  return 1u << static_cast<unsigned>(verb);
}
constexpr unsigned kRun = bit(Verb::run), kCheck = bit(Verb::check), kBench = bit(Verb::bench);
constexpr unsigned kTrace = bit(Verb::trace), kInfo = bit(Verb::info);
constexpr unsigned kRuns = kRun | kTrace, kMeasures = kRuns | kBench, kPlans = kMeasures | kCheck,
                   kAll = kPlans | kInfo;

struct OptionInfo {
  const char* group;
  unsigned verbs;
  const char* name;
  const char* value;    // null: a switch
  const char* meaning;  // null: strategy_meaning()
};

constexpr const char* kProblem = "Problem";
constexpr const char* kInput = "Input; sizes come from the files";
constexpr const char* kPlacement = "Placement";
constexpr const char* kTrust = "Trust";
constexpr const char* kMeasuring = "Measuring";
constexpr const char* kReport = "Report";
constexpr const char* kCommon = "Common";

// What is in parentheses is the default. Options of one group stand together.
constexpr std::array kOptionTable = {
    OptionInfo{kProblem, kPlans, "seq-len", "N", "tokens of the whole sequence (4096)"},
    OptionInfo{kProblem, kPlans, "batch", "N", "sequences (1)"},
    OptionInfo{kProblem, kPlans, "heads", "N", "query heads (8)"},
    OptionInfo{kProblem, kPlans, "kv-heads", "N", "key-value heads, a divisor of the query heads (as many)"},
    OptionInfo{kProblem, kPlans, "head-dim", "N", "1 to 256 (64)"},
    OptionInfo{kProblem, kPlans, "dtype", "TYPE",
               "fp32, bf16 or fp16; float32, float, bfloat16, float16 and half too (fp32)"},
    OptionInfo{kProblem, kPlans, "mask", "MASK",
               "terms joined by '+': full, causal, window:LEFT[,RIGHT] (-1: no limit), sinks:N, prefix:N, "
               "documents:LEN,... or documents:@FILE, and documents:offsets:AT,... or documents:offsets@FILE for "
               "offsets from 0 to the sequence's end, as cu_seqlens (causal)"},
    OptionInfo{kProblem, kPlans, "scale", "X", "multiplies the scores (1/sqrt(head_dim))"},
    OptionInfo{kProblem, kPlans, "backward", nullptr, "the backward pass too"},

    OptionInfo{kInput, kRuns | kCheck, "query", "FILE[:TENSOR]",
               "safetensors, [tokens, heads, head_dim] or with a leading batch (tensor q). Either name may hold a "
               "colon: the longest beginning that names a file is the file; likewise of a + after documents:@"},
    OptionInfo{kInput, kRuns | kCheck, "key", "FILE[:TENSOR]", "(tensor k)"},
    OptionInfo{kInput, kRuns | kCheck, "value", "FILE[:TENSOR]", "(tensor v)"},
    OptionInfo{kInput, kRuns | kCheck, "grad-out", "FILE[:TENSOR]",
               "with --backward (tensor do); generated when left out"},
    OptionInfo{kInput, kRuns | kCheck, "input-layout", "LAYOUT",
               "of these files: bshd, [batch, tokens, heads, head_dim], or bhsd, [batch, heads, tokens, head_dim], "
               "either with or without the batch; --out is written as bshd (bshd)"},

    OptionInfo{kInput, kRuns, "allow-nonfinite", nullptr,
               "take NaNs and infinities from files; verification counts the rows that they reach by the mask apart"},

    OptionInfo{kPlacement, kCheck, "world-size", "P", "ranks of the plan (1)"},
    OptionInfo{kPlacement, kMeasures, "ranks", "P",
               "ranks that are threads of this process, when not under mpirun (1)"},
    OptionInfo{
        kPlacement, kAll, "launcher", "KIND",
        "auto: ranks are what MPI says, and a launcher that says more is refused; none: this process runs alone, "
        "whatever started it (ORRERY_LAUNCHER, auto)"},
    OptionInfo{kPlacement, kMeasures, "threads", "N", "threads that compute, in each rank (ORRERY_THREADS, 1)"},
    OptionInfo{kPlacement, kPlans, "device", "KIND",
               "cpu, cuda, or auto: cuda where every rank has a device whose kernels take the problem; of check: whose "
               "programs are proved and printed, or auto: both are proved (auto)"},
    OptionInfo{kPlacement, kMeasures, "device-index", "N",
               "the CUDA device of every rank, or auto: by the rank's number on its host (auto)"},
    OptionInfo{kPlacement, kMeasures, "share-device", nullptr,
               "allow more ranks on a host than it has CUDA devices; those on one device take turns"},
    OptionInfo{kPlacement, kMeasures, "link", "LINK",
               "between CUDA devices of different processes: nccl, mpi (by way of host memory) or auto (auto)"},
    OptionInfo{kPlacement, kMeasures, "sm-margin", "N",
               "multiprocessors of a CUDA device that attention kernels leave free for NCCL's (ORRERY_SM_MARGIN, 0)"},
    OptionInfo{
        kPlacement, kMeasures, "kernels", "NAME",
        "of a CUDA device: best, its own where it has some, or portable, of every device (ORRERY_KERNELS, best)"},
    OptionInfo{kPlacement, kPlans, "layout", "LAYOUT", "auto, contiguous, zigzag or striped[:B] (auto)"},
    OptionInfo{kPlacement, kPlans, "strategy", "NAME[:OPTION=VALUE,...]", nullptr},  // of the registry
    OptionInfo{kPlacement, kPlans, "keys-per-step", "N",
               "option keys of the ring; auto: 65536 where CUDA devices are shared or joined by NVLink, else, and for "
               "check, 0 "
               "(auto)"},
    OptionInfo{kPlacement, kPlans, "backward-keys-per-step", "N",
               "its option backward-keys; auto: 65536 where CUDA devices are joined by NVLink, else, and for check, 0 "
               "(auto)"},

    OptionInfo{kTrust, kMeasures, "verify", "MODE", "against float64: none, sample or full (sample)"},
    OptionInfo{kTrust, kMeasures, "check", nullptr, "prove the plan before it runs (ORRERY_CHECK)"},
    OptionInfo{kTrust, kMeasures, "inputs", "RECIPE",
               "of generated tensors: normal, or counting, whose exact answer is known for any mask and length: one "
               "missing key shows (normal)"},
    OptionInfo{kTrust, kMeasures, "seed", "N", "of generated inputs and of the sample (0)"},

    OptionInfo{kMeasuring, kRuns, "repeat", "N", "runs that are measured (1)"},
    OptionInfo{kMeasuring, kRuns, "warmup", "N", "runs before those (0)"},
    OptionInfo{kMeasuring, kBench, "repeat", "N", "measured runs of a row (kernel 5, ring 3, overhead 2000, else 3)"},
    OptionInfo{kMeasuring, kBench, "warmup", "N", "runs before those (kernel 1, ring 0, overhead 100, else 1)"},
    OptionInfo{kMeasuring, kMeasures, "timeout", "SECONDS",
               "the longest a rank waits for another (ORRERY_TIMEOUT_SECONDS, 300)"},

    OptionInfo{kReport, kBench, "suite", "NAME",
               "kernel, ring, overhead or all; left out: one row, of the problem given"},
    OptionInfo{kReport, kCheck, "print", "RANK", "print that rank's programs too"},
    OptionInfo{kReport, kAll, "json", "FILE", "the report as JSON; - is standard output, in place of the text"},
    OptionInfo{kReport, kRun, "out", "FILE",
               "safetensors, in position order: out and lse, with --backward dq, dk and dv"},
    OptionInfo{kReport, kRun, "trace", "FILE",
               "when every step ran: .json for Chrome and Perfetto, .svg for a picture"},
    OptionInfo{kReport, kTrace, "out", "FILE", "the timeline: .json for Chrome and Perfetto, or .svg (trace.json)"},
    OptionInfo{kReport, kTrace, "trace", "FILE", "the same as --out"},

    OptionInfo{
        kCommon, kAll, "config", "FILE",
        "lines of NAME = VALUE for any of these options; what is typed wins. A line that begins with # or ; is a "
        "comment; within a value they stand for themselves"},
    OptionInfo{kCommon, kAll, "help,h", nullptr, "this text"},
};

std::string strategy_meaning() {
  std::string names = "auto", options;
  for (const Strategy& strategy : strategies()) {
    names += concat(", ", strategy.name);
    for (const StrategyOption& option : strategy.options) {
      options += concat("; ", strategy.name, ":", usage(option), ", ", option.meaning, " (", option.standard, ")");
    }
  }
  return concat(names, options, " (auto)");
}

}  // namespace

std::optional<Verb> find_verb(std::string_view name) {
  for (const VerbInfo& info : kVerbTable) {
    if (info.name == name) return info.verb;
  }
  return std::nullopt;
}

po::options_description options_of(Verb verb) {
  po::options_description all(kLineLength);
  for (std::size_t i = 0; i < kOptionTable.size();) {
    const char* const name = kOptionTable[i].group;
    po::options_description group(name, kLineLength);
    for (; i < kOptionTable.size() && kOptionTable[i].group == name; ++i) {
      const OptionInfo& option = kOptionTable[i];
      if ((option.verbs & bit(verb)) == 0) continue;
      const std::string meaning = option.meaning == nullptr ? strategy_meaning() : option.meaning;
      if (option.value == nullptr) {
        group.add_options()(option.name, po::bool_switch(), meaning.c_str());
      } else {
        group.add_options()(option.name, po::value<std::string>()->value_name(option.value), meaning.c_str());
      }
    }
    if (!group.options().empty()) all.add(group);
  }
  return all;
}

std::string general_help() {
  TextStream text;
  text << "Orrery: exact attention over a sequence that is sharded across ranks.\n\n"
          "usage: [mpirun -n P] orrery VERB [options]\n\n";
  for (const VerbInfo& info : kVerbTable) {
    text << "  " << info.name << std::string(9 - info.name.size(), ' ') << info.summary << "\n";
  }
  text << "\norrery help VERB (or VERB -h, --help) lists the options of a verb; orrery -V (--version) prints the "
          "version.\n"
          "Exit codes: 0 good; 1 a bug of Orrery; 2 bad usage, bad input or a refused problem; 3 verification failed;\n"
          "4 a peer failed or a deadline passed; 5 out of memory or another resource.\n";
  return text.str();
}

std::string help_of(Verb verb) {
  const VerbInfo& info = info_of(verb);
  TextStream text;
  text << "orrery " << info.name << ": " << info.summary << ".\n" << info.details << "\n" << options_of(verb);
  return text.str();
}

}  // namespace orrery::launch
