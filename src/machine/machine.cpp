#include "orrery/machine.hpp"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "kernels/host/peak.hpp"
#include "orrery/version.hpp"

namespace orrery {
namespace {

// Linux names the model in /proc/cpuinfo on x86; elsewhere the architecture has to do.
std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  utsname name{};
  return ::uname(&name) == 0 ? name.machine : "unknown";
}

int cores_of_this_process() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " __VERSION__;
#else
  return "unknown";
#endif
}

std::string mpi() {
#ifdef ORRERY_MPI_VERSION
  return ORRERY_MPI_VERSION;
#else
  return "none";
#endif
}

}  // namespace

Machine describe_machine() {
  return {.version = kVersion,
          .compiler = compiler(),
          .build_type = ORRERY_BUILD_TYPE,
          .cpu = cpu_model(),
          .cores = cores_of_this_process(),
          .simd = kernels::simd_target_name(),
          .mpi = mpi(),
          .cuda_runtime = cuda_runtime_version(),
          .cuda_driver = cuda_driver_version(),
          .cuda_devices = cuda_devices()};
}

bool has_cuda_driver(const std::string& root) {
  const std::filesystem::path files(root);
  std::error_code ignored;
  return std::filesystem::exists(files / "proc/driver/nvidia/version", ignored) ||
         std::filesystem::exists(files / "dev/nvidiactl", ignored);
}

double measured_fma_peak_flops() {
  return kernels::measured_fma_peak_flops();
}

}  // namespace orrery
